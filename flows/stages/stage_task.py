"""A stage as a Prefect task: cached by content across runs, retried where that helps, its child's log in the run."""

from __future__ import annotations

import pkgutil
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import TaskRun
from prefect.states import Failed, State
from prefect.tasks import Task
from pydantic import BaseModel

from flows.errors import FinetuneError, is_disk_full
from flows.reporting.contract import StageStatus
from flows.stages.keys import cache_key, dependencies, what_changed
from flows.stages.registry import STAGES, Stage
from flows.stages.run_child import run_child
from flows.stages.run_context import RunContext
from flows.store.artifacts import Artifact, is_whole, publish
from flows.store.files import read_json, write_json
from flows.store.locks import locked

RETRIES = 2
RETRY_DELAY_S = 5


class Outcome(BaseModel):
    """How a stage ended: what it made, and whether this run or a former one made it."""

    stage: str
    status: StageStatus
    seconds: float
    why: str
    artifact: Artifact
    figures: dict[str, Any]
    maker: dict[str, str]


class StageError(FinetuneError):
    """A stage ended without a result; the message is the stage's own."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


@dataclass(frozen=True)
class StageCall:
    """One call of a stage: what it runs on, and what its output depends on.

    `inputs` are folders it reads; `digests` name, by content, what the output depends on besides the config;
    `environment` holds secrets and the like for the child process and is no part of the key.
    """

    name: str
    config: BaseModel
    inputs: dict[str, Path]
    digests: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def stage(self) -> Stage:
        """The stage as the registry knows it."""
        return STAGES[self.name]

    @cached_property
    def depends_on(self) -> dict[str, Any]:
        """Everything that can change the output."""
        return dependencies(self.stage, self.config, self.digests)

    @property
    def key(self) -> str:
        """The cache key."""
        return cache_key(self.stage, self.depends_on)


def run_stage(run: RunContext, call: StageCall) -> Outcome:
    """Run a stage, or take a former result with the same key.

    Raises:
        StageError: it failed for good; the message is for people.
    """
    history = run.store.history(run.line, call.name)
    changed = what_changed(read_json(history), call.depends_on)
    asked = call.name in run.options.refresh
    started = time.monotonic()
    prefect_task: Any = make_task(run, call, refresh=asked or finished(run, call.key) is None)
    state: State[Any] = prefect_task(run, call, return_state=True)
    if not state.is_completed():
        raise StageError(call.name, state.message or f"The stage {call.name} ended as {state.name}.")
    result: Any = state.result()
    cached = state.name == "Cached" or result["maker"]["run_id"] != run.run_id
    write_json(history, call.depends_on)
    return Outcome(
        stage=call.name,
        status="cached" if cached else "ran",
        seconds=time.monotonic() - started,
        why=_why(cached, result, changed, asked),
        artifact=Artifact.model_validate(result["artifact"]),
        figures=result["figures"],
        maker=result["maker"],
    )


def _why(cached: bool, result: dict[str, Any], changed: str, asked: bool) -> str:
    if cached:
        return f"same inputs, settings and code as in {result['maker']['run_name']}"
    if asked:
        return "asked to run anyway"
    return "the former result is gone or damaged" if changed == "nothing changed" else changed


def make_task(run: RunContext, call: StageCall, refresh: bool) -> Task[Any, Any]:
    """The Prefect task of a stage with its cache key; the record of its result is a small JSON file in the store."""
    run.store.results.mkdir(parents=True, exist_ok=True)
    key = call.key
    return Task(
        fn=_work,
        name=call.name,
        task_run_name=call.name,
        cache_key_fn=lambda context, parameters: key,
        persist_result=True,
        result_storage=run.store.results,
        result_serializer="json",
        refresh_cache=refresh,
        retries=RETRIES,
        retry_delay_seconds=RETRY_DELAY_S,
        retry_condition_fn=can_retry_help,
    )


def can_retry_help(prefect_task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Bad configuration and bad data fail at once; a killed child is started again."""
    data = state.data
    return bool(data.get("retryable")) if isinstance(data, dict) else True


def _work(run: RunContext, call: StageCall) -> Any:
    return failing_in_words(run, call.name, lambda: _work_once(run, call))


def failing_in_words(run: RunContext, name: str, work: Callable[[], Any]) -> Any:
    """What `work` returns; for an error meant for people a Failed state with its words.

    Returned, not raised: the run shows the words alone, without a traceback of ours.
    """
    try:
        return work()
    except FinetuneError as error:
        words, retryable = str(error), error.retryable
    except OSError as error:
        if not is_disk_full(error):
            raise
        words, retryable = f"The disk of the store {run.store.root} is full. Free some space and run again.", False
    run.logger.error("%s failed: %s", name, words)
    return Failed(message=words, data={"retryable": retryable})


def _work_once(run: RunContext, call: StageCall) -> dict[str, Any]:
    """Do the work under the key's lock, unless another run has just done it, and publish what it made."""
    workdir = run.store.work(call.key)
    waiting = partial(run.logger.info, "Another run is making the same result; waiting for it.")
    with locked(run.store.locks / call.key, waiting):
        already = finished(run, call.key)
        if already is not None and call.name not in run.options.refresh:
            return already
        started = time.monotonic()
        shutil.rmtree(workdir / "output", ignore_errors=True)
        figures = _figures(run, call, workdir)
        made_from = {"stage": call.name, **call.depends_on, **run.maker()}
        artifact = publish(run.store, call.stage.artifact, workdir / "output", made_from)
        result = {
            "artifact": artifact.model_dump(),
            "figures": {**figures, "stage_seconds": time.monotonic() - started},
            "maker": run.maker(),
        }
        shutil.rmtree(workdir)
        write_json(workdir / "done.json", result)
        return result


def _figures(run: RunContext, call: StageCall, workdir: Path) -> dict[str, Any]:
    progress = run.progress(call.name)
    if call.stage.heavy:
        inputs = {name: str(path) for name, path in call.inputs.items()}
        return run_child(call.stage.function, call.config, inputs, workdir, progress, run.logger.info, call.environment)
    workdir.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = pkgutil.resolve_name(call.stage.function)(call.config, call.inputs, workdir, progress)
    return figures


def finished(run: RunContext, key: str) -> dict[str, Any] | None:
    """The result that some run has left for this key, if its artifact is still whole."""
    result = read_json(run.store.work(key) / "done.json")
    if not isinstance(result, dict) or not is_whole(Artifact.model_validate(result["artifact"])):
        return None
    return result
