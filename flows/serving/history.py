"""What the watcher remembers of an endpoint between its passes: endpoints/<name>/history.json, written by it alone."""

from __future__ import annotations

import math
import statistics
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.serving.state import State
from flows.store.files import write_atomically

KEPT = timedelta(hours=24)
MOST_SAMPLES = 3000  # of 24 h: one every 29 s
MOST_CHANGES = 200


class Sample(NamedTuple):
    """One check: when (seconds since 1970, UTC) and how long the good answers took in seconds; None: it was a miss."""

    at: float
    latency_s: float | None


class Change(BaseModel):
    """Something that happened to an endpoint. `what` is the new state in lower case, `promoted` or `rolled-back`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    at: datetime
    what: str
    before: State | None
    after: State
    why: str = ""
    revision: int = 0


class History(BaseModel):
    """One endpoint as the watcher has seen it.

    Attributes:
        launch: the server process that all counts below are about; another one starts them anew.
        state, since, why: what it was found to be, since when, and the reason.
        misses, passes: bad and good checks in a row.
        start_until: until when a server that the watcher started may take to answer.
        restarts, restart_at: how often it was started again without 10 good minutes since, and when it is next.
        holds, held_until: how often it was held UNHEALTHY for flapping, and until when.
        samples, changes: the last 24 hours, and the last 200 changes, oldest first.
    """

    model_config = ConfigDict(extra="forbid")

    launch: str = ""
    revision: int = 0
    state: State | None = None
    since: datetime | None = None
    why: str = ""
    misses: int = 0
    passes: int = 0
    start_until: datetime | None = None
    restarts: int = 0
    restart_at: datetime | None = None
    holds: int = 0
    held_until: datetime | None = None
    samples: list[Sample] = []
    changes: list[Change] = []

    def sample(self, now: datetime, latency_s: float | None) -> None:
        """Add a check, and forget those of more than 24 hours ago (or from a clock that was put back)."""
        at = now.timestamp()
        kept = [old for old in self.samples if at - KEPT.total_seconds() < old.at <= at]
        self.samples = [*kept, Sample(round(at, 1), latency_s if latency_s is None else round(latency_s, 4))]
        self.samples = self.samples[-MOST_SAMPLES:]

    def change(self, change: Change) -> Change:
        """Add a change; the same one back, for chaining."""
        self.changes = [*self.changes, change][-MOST_CHANGES:]
        return change

    @property
    def uptime(self) -> float | None:
        """Share of good checks, 0..1; None without any."""
        return _share(self.samples)

    @property
    def latency_s(self) -> float | None:
        """Median seconds of a good check of the last 24 hours: health path, model list and 16 tokens."""
        known = [sample.latency_s for sample in self.samples if sample.latency_s is not None]
        return statistics.median(known) if known else None

    def shares(self, now: datetime, parts: int) -> list[float | None]:
        """Share of good checks, 0..1, in equal parts of the last 24 hours, oldest first; None where there was none."""
        width = KEPT.total_seconds() / parts
        begin = now.timestamp() - KEPT.total_seconds()
        sorted_in: list[list[Sample]] = [[] for _ in range(parts)]
        for sample in self.samples:
            part = math.ceil((sample.at - begin) / width) - 1
            if 0 <= part < parts:
                sorted_in[part].append(sample)
        return [_share(samples) for samples in sorted_in]


def load(folder: Path, name: str) -> History:
    """The history of an endpoint; a new one if there is none, or if its file is damaged."""
    try:
        return History.model_validate_json(_path(folder, name).read_bytes())
    except (OSError, ValidationError):
        return History()


def save(folder: Path, name: str, history: History) -> None:
    """Write it whole or not at all."""
    write_atomically(_path(folder, name), history.model_dump_json())


def _share(samples: list[Sample]) -> float | None:
    return sum(sample.latency_s is not None for sample in samples) / len(samples) if samples else None


def _path(folder: Path, name: str) -> Path:
    return folder / name / "history.json"
