"""What a run has spent: one small file an attempt at a stage, kept up to date while it works.

So nothing is lost when a process is killed, and stages on other machines that share the store are in it.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from pydantic import BaseModel, ValidationError

from flows.cost.cost import Cost, total
from flows.store.files import read_json


class Attempt(BaseModel):
    """One process at work on one stage: which, since when (ISO time), and what it has cost so far."""

    stage: str
    started: str
    cost: Cost


def new_file(folder: Path, stage: str) -> Path:
    """A file for one more attempt; it is not made yet."""
    return folder / f"{stage}-{uuid.uuid4().hex[:12]}.json"


def read_attempt(file: Path) -> Attempt | None:
    """The attempt; None if its file is not there or damaged."""
    try:
        return Attempt.model_validate(read_json(file))
    except ValidationError:
        return None


def attempts(folder: Path) -> list[Attempt]:
    """All attempts of a run, the earliest first."""
    found = [read_attempt(file) for file in folder.glob("*.json")]
    return sorted((one for one in found if one is not None), key=lambda one: one.started)


def spent(folder: Path) -> Cost:
    """What a run has spent up to now, all attempts of all its stages."""
    return total(one.cost for one in attempts(folder))


def by_stage(folder: Path) -> dict[str, Cost]:
    """The same by the stages' names, in the order in which they began."""
    found = attempts(folder)
    names = dict.fromkeys(one.stage for one in found)
    return {name: total(one.cost for one in found if one.stage == name) for name in names}
