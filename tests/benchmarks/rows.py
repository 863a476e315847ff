"""One line of the benchmark table."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from pydantic import BaseModel


class Row(BaseModel):
    """`ratio` is ours / other; `holds` says whether it keeps the bar, None where there is no bar to keep."""

    name: str
    ours: float
    other: float
    unit: str
    ratio: float
    bar: str
    holds: bool | None
    where: str


def compare(
    name: str,
    where: str,
    unit: str,
    ours: list[float],
    other: list[float],
    bar: str = "",
    keeps: Callable[[float], bool] | None = None,
) -> Row:
    """A row from repeated measurements: the medians and their ratio."""
    mine, theirs = statistics.median(ours), statistics.median(other)
    ratio = mine / theirs
    holds = keeps(ratio) if keeps else None
    return Row(name=name, ours=mine, other=theirs, unit=unit, ratio=ratio, bar=bar, holds=holds, where=where)
