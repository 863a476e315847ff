"""What the watcher remembers of an endpoint between its passes: endpoints/<name>/history.json, written by it alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from flows.serving.state import State
from flows.store.files import write_atomically

KEPT = timedelta(hours=24)
MOST_SAMPLES = 3000  # of 24 h: one every 29 s
MOST_CHANGES = 200


def _in_use(at: datetime) -> datetime:
    """A time that can be reckoned with."""
    if not 1970 <= at.year < 9000:
        raise ValueError("no time of a check")
    return at


When = Annotated[AwareDatetime, AfterValidator(_in_use)]
Count = Annotated[int, Field(ge=0, le=10**6)]


class Sample(NamedTuple):
    """One check.

    Attributes:
        at: when, in seconds since 1970, UTC.
        latency_s: seconds of the good answers; None if one was missed, or the model was not asked.
        tokens_per_s: of the answer; None without one.
        answered: requests of others that were answered since the check before, for which the model was not asked.
    """

    at: Annotated[float, Field(ge=0, lt=2e11)]
    latency_s: FiniteFloat | None
    tokens_per_s: FiniteFloat | None = None
    answered: int = 0

    @property
    def good(self) -> bool:
        """Whether it was not a miss."""
        return self.latency_s is not None or self.answered > 0


class Change(BaseModel):
    """Something that happened to an endpoint. `what` is the new state in lower case, `promoted` or `rolled-back`.

    `gave_up`: it is not started again; `roll_back`: the revision before is to take over.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    at: When
    what: str
    before: State | None
    after: State
    why: str = ""
    revision: int = 0
    gave_up: bool = False
    roll_back: bool = False


class History(BaseModel):
    """One endpoint as the watcher has seen it.

    Attributes:
        launch: the server process that all counts below are about; another one starts them anew.
        state, since, why: what it was found to be, since when, and the reason.
        misses, passes: bad and good checks in a row.
        lapses: misses with good checks before and after them, each soon after the one before.
        busy_at: when a check found it at work on others' requests.
        answered: how many requests the server had answered well at the end of the last check, if it counts them.
        start_until: until when a server that the watcher started may take to answer.
        restarts, restart_at: how often it was started again without 10 good minutes since, and when it is next.
        holds, held_until: how often it was held UNHEALTHY for flapping, and until when.
        samples, changes: the last 24 hours, and the last 200 changes, oldest first.
    """

    model_config = ConfigDict(extra="forbid")

    launch: str = ""
    revision: int = 0
    state: State | None = None
    since: When | None = None
    why: str = ""
    misses: Count = 0
    passes: Count = 0
    lapses: Count = 0
    busy_at: When | None = None
    answered: FiniteFloat | None = None
    start_until: When | None = None
    restarts: Count = 0
    restart_at: When | None = None
    holds: Count = 0
    held_until: When | None = None
    samples: list[Sample] = []
    changes: list[Change] = []

    def begin(self, launch: str) -> None:
        """Take up another server process: what was counted of the one before is void."""
        self.launch, self.answered = launch, None
        self.misses = self.passes = self.lapses = 0

    def add(self, sample: Sample) -> None:
        """Add a check, and forget those of more than 24 hours before (or from a clock that was put back)."""
        kept = [old for old in self.samples if sample.at - KEPT.total_seconds() < old.at <= sample.at]
        self.samples = [*kept, sample][-MOST_SAMPLES:]

    def move(
        self,
        name: str,
        state: State,
        why: str,
        now: datetime,
        *,
        again: bool = False,
        gave_up: bool = False,
        roll_back: bool = False,
    ) -> list[Change]:
        """Set state and reason.

        Returns:
            A change if the state is another one, or if it is to be told once more (`again`); else nothing.
        """
        before, self.why = self.state, why
        if state is before and not again:
            return []
        if state is not before:
            self.state, self.since = state, now
        change = Change(
            name=name,
            at=now,
            what=state.value.lower(),
            before=before,
            after=state,
            why=why,
            revision=self.revision,
            gave_up=gave_up,
            roll_back=roll_back,
        )
        return [self.change(change)]

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
        return _median(sample.latency_s for sample in self.samples)

    @property
    def tokens_per_s(self) -> float | None:
        """Median tokens a second of a check's answer in the last 24 hours, the wait for the first one included."""
        return _median(sample.tokens_per_s for sample in self.samples)

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
    """The history of an endpoint; a new one if there is none, or if its file is damaged or senseless."""
    try:
        return History.model_validate_json(_path(folder, name).read_bytes())
    except (OSError, ValidationError):
        return History()


def save(folder: Path, name: str, history: History) -> None:
    """Write it whole or not at all."""
    write_atomically(_path(folder, name), history.model_dump_json())


def _share(samples: list[Sample]) -> float | None:
    return sum(sample.good for sample in samples) / len(samples) if samples else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _path(folder: Path, name: str) -> Path:
    return folder / name / "history.json"
