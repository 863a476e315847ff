"""A stage as a Prefect task: cached by content across runs, retried where that helps, made here or in a work pool."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from prefect.client.schemas.objects import TaskRun
from prefect.states import Failed, State
from prefect.tasks import Task, exponential_backoff
from pydantic import BaseModel

from flows.errors import FinetuneError, RunEndedError, is_disk_full
from flows.reporting.contract import StageStatus
from flows.stages.call import StageCall
from flows.stages.former import Former, nearest
from flows.stages.make import artifact_of, finished, make
from flows.stages.placement import make_elsewhere
from flows.stages.run_context import RunContext
from flows.store.artifacts import Artifact
from flows.store.files import read_json, write_json
from flows.store.garbage import USES
from flows.store.layout import DONE

_USES = threading.Lock()
RETRIES = 3
FIRST_RETRY_S = 5.0  # then twice as long each time
JITTER = 0.5  # of the delay, at random: what failed together does not come back together


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


def run_stage(run: RunContext, call: StageCall) -> Outcome:
    """Run a stage, or take a former result with the same key.

    Raises:
        StageError: it failed for good; the message is for people.
    """
    started = time.monotonic()
    asked = call.anew or call.stage.name in run.options.anew
    missing = finished(run, call.key, wanted_here(call)) is None
    former = nearest(run.store, call) if missing else None
    prefect_task: Any = make_task(run, call, refresh=asked or missing)
    state: State[Any] = prefect_task(run, call, return_state=True)
    if not state.is_completed():
        raise StageError(call.name, state.message or f"The stage {call.name} ended as {state.name}.")
    result: Any = state.result()
    cached = state.name == "Cached" or result["maker"]["run_id"] != run.run_id
    why = _why(cached, result, former, asked)
    run.logger.info("%s %s: %s.", call.name, "is cached" if cached else "ran", why)
    note_use(run, call, result)
    if not cached or missing:
        run.store.share_files([run.store.results / call.key])
    return Outcome(
        stage=call.name,
        status="cached" if cached else "ran",
        seconds=time.monotonic() - started,
        why=why,
        artifact=artifact_of(run, result),
        figures=result["figures"],
        maker=result["maker"],
    )


def wanted_here(call: StageCall) -> bool:
    """Whether the run itself reads what the stage makes: not a model that is trained in a work pool."""
    return not (call.resources.work_pool and call.stage.artifact == "model")


def note_use(run: RunContext, call: StageCall, result: dict[str, Any]) -> None:
    """Keep the result from being collected: it was used now, and by this run."""
    with contextlib.suppress(OSError):
        (run.store.work(call.key) / DONE).touch()
    with _USES:  # branches run in threads
        file = run.store.run(run.run_id) / USES
        uses = read_json(file) or {}
        write_json(file, uses | {call.name: {"key": call.key, "artifact": result["artifact"]["path"]}})
        run.store.share_files([file])


def _why(cached: bool, result: dict[str, Any], former: Former | None, asked: bool) -> str:
    if cached:
        return why_cached(result)
    return "asked to run anyway" if asked else why_again(former)


def why_cached(result: dict[str, Any]) -> str:
    """Why a stage need not run."""
    return f"same inputs, settings and code as in {result['maker']['run_name']}"


def why_again(former: Former | None) -> str:
    """Why a stage without a finished result must run, against the nearest former one."""
    if former is None:
        return "first run"
    if not former.changes:
        return "the former result is gone or damaged"
    return f"{'; '.join(former.changes)} (since {former.maker['run_name']})"


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
        retry_delay_seconds=exponential_backoff(FIRST_RETRY_S),
        retry_jitter_factor=JITTER,
        retry_condition_fn=can_retry_help,
    )


def can_retry_help(prefect_task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Bad configuration and bad data fail at once; a killed child is started again."""
    data = state.data
    return bool(data.get("retryable")) if isinstance(data, dict) else True


def _work(run: RunContext, call: StageCall) -> Any:
    return failing_in_words(run, call.name, lambda: _make(run, call))


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


def _make(run: RunContext, call: StageCall) -> dict[str, Any]:
    if run.ending.is_set():  # a child that was killed with the run must not be started again
        raise RunEndedError
    refresh = call.anew or call.stage.name in run.options.anew
    if call.resources.work_pool:
        return make_elsewhere(run, call, refresh)
    return make(run, call, refresh, waiting=_waiting(run, call))


def _waiting(run: RunContext, call: StageCall) -> Callable[[str], None]:
    """Says in the log and in the stage's progress what it waits for."""
    progress = run.progress(call.name)

    def tell(why: str) -> None:
        if why:
            run.logger.info("%s: %s", call.name, why)
            progress(0, 1, why)

    return tell
