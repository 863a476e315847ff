"""What some work cost, and the sum of several such."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

Number = TypeVar("Number", int, float)


class Cost(BaseModel):
    """What work cost. None is unknown or does not apply, never zero.

    Attributes:
        seconds: of work; what ran side by side is added up, what waited for a card or a person is not in it.
        gpu_hours: cards (or shares of one) times hours.
        energy_kwh: of what `energy_of` names; None if it could not be measured.
        energy_of: "cards" (NVML), "CPUs" (RAPL).
        tokens: trained on, or read and written by a model in the evaluation; None if there was no model.
        flops: floating-point operations of those (`flows.cost.flops`).
        money: by the prices given; None without one, or if something that has a price is unknown.
        attempts: how many processes worked on it; more than one after a kill or an error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: float = 0.0
    gpu_hours: float = 0.0
    energy_kwh: float | None = None
    energy_of: list[str] = []
    tokens: int | None = None
    flops: float | None = None
    money: float | None = None
    attempts: int = 1


def total(costs: Iterable[Cost]) -> Cost:
    """The sum. Energy and money are unknown if a part's are; tokens and FLOPs are those of the parts that have any."""
    parts = list(costs)
    return Cost(
        seconds=sum(one.seconds for one in parts),
        gpu_hours=sum(one.gpu_hours for one in parts),
        energy_kwh=_all(one.energy_kwh for one in parts),
        # What is measured of only one part is not measured of the whole.
        energy_of=[kind for kind in ("cards", "CPUs") if any(kind in one.energy_of for one in parts)],
        tokens=_any(one.tokens for one in parts),
        flops=_any(one.flops for one in parts),
        money=_all(one.money for one in parts),
        attempts=sum(one.attempts for one in parts),
    )


def _all(values: Iterable[Number | None]) -> Number | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _any(values: Iterable[Number | None]) -> Number | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
