"""One run of the pipeline: where its things lie, who it is, and how it tells the outside how far it is."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import prefect.runtime
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_UI_URL
from prefect.states import State
from pydantic import Field

from flows.config import Config
from flows.cost.budget import Budget
from flows.cost.prices import Prices
from flows.ending import hear_again
from flows.errors import ConfigError, RunEndedError
from flows.progress import Progress
from flows.reporting.notice_config import NoticeConfig
from flows.stages.opening import open_store
from flows.stages.prefect_progress import ProgressArtifact
from flows.store.files import write_json
from flows.store.garbage import SPENT
from flows.store.layout import Store

MOST_CRASHES = 4
StageName = Literal["prepare", "pretrain", "finetune", "evaluate"]
ORDER: tuple[StageName, ...] = ("prepare", "pretrain", "finetune", "evaluate")


class RunOptions(Config):
    """About the run itself."""

    title: str = Field(default="Domain adaptation", min_length=1, title="Title", description="Stands on the report.")
    description: str = Field(default="", title="Description", description="What this run is for; stands on the report.")
    store: str = Field(
        default="",
        title="Artifact store",
        description="Folder for models, data sets and reports, or s3://bucket/prefix, or s3-store/NAME of an S3 Store "
        "block. Empty: FINETUNE_STORE of the environment, else ~/.local/share/prefect-finetune.",
    )
    env: list[str] = Field(
        default=[],
        title="Environment",
        description="NAME=value for the processes of all stages; NAME=secret:block takes the value of that Secret "
        "block. What a stage's own resources say comes first.",
    )
    notify: NoticeConfig = Field(
        default=NoticeConfig(), title="Messages", description="Who is told how the run ended, through Prefect blocks."
    )
    refresh: list[StageName] = Field(
        default=[], title="Run anyway", description="Stages to run even though a finished result is in the store."
    )
    from_stage: Literal["", "prepare", "pretrain", "finetune", "evaluate"] = Field(
        default="", title="Run anyway from", description="That stage and all after it, as in Run anyway."
    )
    skip: list[Literal["pretrain", "evaluate"]] = Field(
        default=[],
        title="Leave out",
        description="Without evaluate there is no gate, and nothing is served.",
    )
    only_if_changed: bool = Field(
        default=False,
        title="Only if changed",
        description="End at once, as Skipped, if every stage's result is there and nothing else is asked for than in "
        "the run of this deployment before.",
    )
    at_once: int = Field(
        default=0,
        ge=0,
        title="Variants at a time",
        description="0: all if finetune has a work pool or GPUs of its own in the resources, else one after another.",
    )

    @property
    def anew(self) -> set[str]:
        """Kinds of stages that run even though a finished result is there."""
        later = ORDER[ORDER.index(self.from_stage) :] if self.from_stage else ()
        return {*self.refresh, *later}


@dataclass
class RunContext:
    """What every stage of a run needs to know.

    `ending` is set when the run is being ended from outside: what its threads wait for, they then end.
    """

    store: Store
    options: RunOptions
    run_id: str
    run_name: str
    line: str
    flow_name: str = ""
    prices: Prices = field(default_factory=Prices)
    budget: Budget = field(default_factory=Budget)
    started: float = field(default_factory=time.monotonic)
    ending: threading.Event = field(default_factory=threading.Event)

    @property
    def run_url(self) -> str:
        """The run's page in the Prefect UI; empty without one."""
        return page_of(self.run_id)

    @property
    def ledger(self) -> Path:
        """Where its stages keep what they spend (`flows.cost.ledger`); a run that is started again goes on with it."""
        return self.store.run(self.run_id) / SPENT

    @property
    def logger(self) -> logging.Logger | logging.LoggerAdapter[Any]:
        """The logger of the flow or task run that is under way."""
        return get_run_logger()

    def pause(self, seconds: float) -> None:
        """Wait for something. Who waits is at work as well, however long that takes (`flows.store.garbage.at_work`).

        Raises:
            RunEndedError: the run is being ended.
        """
        with contextlib.suppress(OSError):  # nothing is spent yet
            os.utime(self.ledger)
        if self.ending.wait(seconds):
            raise RunEndedError

    def maker(self) -> dict[str, str]:
        """Who makes a result: stored in it, since a cached state itself does not know."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return {"run_id": self.run_id, "run_name": self.run_name, "run_url": self.run_url, "time": now}

    def progress(self, stage: str) -> Progress:
        """Progress of a stage: an artifact in the Prefect UI, and a file for whoever watches from a terminal."""
        return combined(ProgressArtifact(stage), self._progress_file(stage))

    def _progress_file(self, stage: str) -> Progress:
        path = self.store.run(self.run_id) / "progress.json"

        def report(done: float, total: float, note: str = "", /, **figures: float) -> None:
            # Nice to have: a full disk must not end a stage from here.
            with contextlib.suppress(OSError):
                write_json(path, {"stage": stage, "done": done, "total": total, "note": note, "figures": figures})

        return report


def page_of(run_id: str) -> str:
    """A run's page in the Prefect UI; empty without one."""
    ui = PREFECT_UI_URL.value()
    return f"{str(ui).rstrip('/')}/runs/flow-run/{run_id}" if ui else ""


def current_run(
    options: RunOptions, prices: Prices = Prices(), budget: Budget = Budget(), field: str = "run.store"
) -> RunContext:
    """The context of the flow run that is under way; `field` is the parameter that names the store, for errors.

    Raises:
        ConfigError: there can be no such store.
    """
    hear_again(TerminationSignal)
    deployment = prefect.runtime.deployment.name
    return RunContext(
        store=open_store(options.store, field),
        options=options,
        run_id=str(prefect.runtime.flow_run.id),
        run_name=str(prefect.runtime.flow_run.name),
        line=str(deployment or "local"),
        flow_name=str(prefect.runtime.flow_run.flow_name),
        prices=prices,
        budget=budget,
    )


def give_up_after_crashes() -> None:
    """An automation starts a crashed run again and cannot count, so the run itself does.

    Raises:
        ConfigError: its last MOST_CRASHES starts have all crashed.
    """
    if int(prefect.runtime.flow_run.run_count or 1) <= MOST_CRASHES:
        return
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(UUID(str(prefect.runtime.flow_run.id)))
    if crashes(states) >= MOST_CRASHES:
        raise ConfigError(
            f"This run has crashed {MOST_CRASHES} times, so it is given up. What it had finished is kept: look at the "
            "worker's log for what ends it, then retry this run or start a new one."
        )


def crashes(states: Iterable[State[Any]]) -> int:
    """How many starts of a run have crashed since one last ended in another way: failed, say, and retried by hand.

    A worker tells of one death twice, so only what has run counts.
    """
    count, ran = 0, False
    for state in sorted(states, key=lambda one: one.timestamp):
        if state.is_running():
            ran = True
        elif state.is_crashed():
            count, ran = count + ran, False
        elif state.is_final():
            count, ran = 0, False
    return count


def combined(*listeners: Callable[..., None]) -> Progress:
    """One progress that tells several."""

    def report(done: float, total: float, note: str = "", /, **figures: float) -> None:
        for listener in listeners:
            listener(done, total, note, **figures)

    return report
