"""A run that has nothing to do: every stage is there, nothing else is asked for, and the former run has ended well."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, State
from pydantic_core import to_jsonable_python

from flows.errors import FinetuneError
from flows.reporting.contract import RunReport
from flows.reporting.markdown import link, plain, verdict_line
from flows.stages.call import StageCall
from flows.stages.explanation import look, look_for_model
from flows.stages.pipeline import Pipeline
from flows.stages.report import report_of
from flows.stages.resources import StageResources
from flows.stages.run_context import RunContext
from flows.stages.stage_task import Outcome, note_use
from flows.store.files import read_json, write_json

NAME = "Skipped"  # of the state; its type is Completed
REPORT = "report.json"


class WouldRunError(Exception):
    """A stage would run; the message says which and why. No FinetuneError: nothing is wrong."""


def unchanged(
    run: RunContext,
    asked: dict[str, Any],
    walk: Callable[[Pipeline], object],
    own: Mapping[str, StageResources] = MappingProxyType({}),
    always: Collection[str] = (),
) -> State[Any] | None:
    """How a run ends that has nothing to do; None where there is something, which is logged.

    Args:
        run: the run, of the same flow and deployment as the one before.
        asked: what it asks for beside its stages (gate, serving); compared with the run before.
        walk: calls the stages as the run would.
        own: resources by the name of a stage, as in `Pipeline`.
        always: stages that run anyway, as there.
    """
    line = Pipeline(run, runner=only_finished, fetcher=look_for_model, own=own, always=always)
    why = _why_not(run, asked, lambda: walk(line))
    if why:
        run.logger.info("There is something to do: %s", why)
        return None
    former = read_json(_record(run))
    report = report_of(run.store.run(former["run_id"]))
    verdict = f" {verdict_line(report)}" if report else ""
    words = f"Nothing has changed since {former['run_name']} ({former['time']}), so nothing is done.{verdict}"
    run.logger.info("%s", words)
    page = f"# Nothing has changed\n\n{plain(words)}\n\nThat run: {link(former['run_name'], former['run_url'])}\n"
    create_markdown_artifact(page, key="nothing-changed", description=words[:200])
    return Completed(name=NAME, message=words)


def ended_well(run: RunContext, asked: dict[str, Any], report: RunReport | None = None) -> None:
    """Remember that this run has done all that it was asked for, for the next one of its flow and deployment."""
    record = {**run.maker(), "asked": to_jsonable_python(asked), "left": REPORT if report else ""}
    write_json(_record(run), record)


def only_finished(run: RunContext, call: StageCall) -> Outcome:
    """A stage whose result is there, which counts as used by this run.

    Raises:
        WouldRunError: it is not.
    """
    outcome = look(run, call)
    if outcome.status != "cached":
        raise WouldRunError(f"{call.name}: {outcome.why}")
    path = run.store.relative(Path(outcome.artifact.path))
    note_use(run, call, {"artifact": {"path": path}})
    return outcome


def _why_not(run: RunContext, asked: dict[str, Any], walk: Callable[[], object]) -> str:
    former = read_json(_record(run))
    if not isinstance(former, dict):
        return "no run of this deployment has ended well so far"
    changed = [name for name, value in to_jsonable_python(asked).items() if former["asked"].get(name) != value]
    if changed:
        return f"{' and '.join(changed)} changed since {former['run_name']}"
    if former["left"] and not (run.store.run(former["run_id"]) / former["left"]).exists():
        return f"the report of {former['run_name']} is gone"
    try:
        walk()
    except (WouldRunError, FinetuneError) as change:
        return str(change)
    return ""


def _record(run: RunContext) -> Any:
    """One file for each flow and deployment, whose names may hold what a file's name may not."""
    name = f"{run.flow_name}/{run.line}"
    return run.store.root / "lines" / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
