"""What a run would do, found out without running it: the same stages, with a runner that only looks into the store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flows.base_models.resolve import BaseModelConfig, ResolvedModel, identity, pinned, ready
from flows.reporting.contract import StageStatus
from flows.stages.call import StageCall
from flows.stages.former import nearest
from flows.stages.make import artifact_of, finished
from flows.stages.registry import STAGES
from flows.stages.report import stage_report
from flows.stages.run_context import RunContext
from flows.stages.stage_task import Outcome, why_again, why_cached
from flows.store.artifacts import Artifact

if TYPE_CHECKING:
    from flows.stages.pipeline import Pipeline

NOT_YET = "not yet made: "


def look(run: RunContext, call: StageCall) -> Outcome:
    """What would become of a stage: `cached`, or `ran` with the reason. A result that is not there yet has no digest.

    What is made from a result that would be made anew is itself made anew, and says so.
    """
    started = time.monotonic()
    anew = sorted(name for name, digest in call.digests.items() if digest.startswith(NOT_YET))
    asked = call.anew or call.stage.name in run.options.anew
    result = None if anew or asked else finished(run, call.key, call.stage.name == "shell", use=False)
    if result is not None:
        return _outcome(run, call, "cached", why_cached(result), result, started)
    if asked:
        why = "asked to run anyway"
    elif anew:
        words = " and ".join(call.digests[name].removeprefix(NOT_YET) for name in anew)
        own = [change for change in _own_changes(run, call) if not change.startswith("another ")]
        why = "; ".join([*own, f"{words} would run"])
    else:
        why = why_again(nearest(run.store, call))
    return _outcome(run, call, "ran", why, None, started)


def not_yet(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Which of these stages would run first, so that what they make cannot be looked at."""
    return sorted(name for name, one in outcomes.items() if one.artifact.digest.startswith(NOT_YET))


def foretold(line: Pipeline, name: str, kind: str, unmade: list[str]) -> Outcome:
    """A stage that reads files which are made by others first: noted in the pipeline as one that would run."""
    artifact = Artifact(kind=STAGES[kind].artifact, digest=f"{NOT_YET}{name}", path="/")
    why = f"{' and '.join(unmade)} would run"
    outcome = Outcome(stage=name, status="ran", seconds=0, why=why, artifact=artifact, figures={}, maker={})
    line.outcomes[name] = outcome
    line.stages.append(stage_report(outcome))
    return outcome


def _own_changes(run: RunContext, call: StageCall) -> list[str]:
    former = nearest(run.store, call)
    return former.changes if former else []


def _outcome(
    run: RunContext, call: StageCall, status: StageStatus, why: str, result: dict[str, Any] | None, started: float
) -> Outcome:
    placeholder = Artifact(kind=call.stage.artifact, digest=f"{NOT_YET}{call.name}", path="/")
    return Outcome(
        stage=call.name,
        status=status,
        seconds=time.monotonic() - started,
        why=why,
        artifact=artifact_of(run, result) if result else placeholder,
        figures=result["figures"] if result else {},
        maker=result["maker"] if result else {},
    )


def look_for_model(run: RunContext, config: BaseModelConfig) -> tuple[ResolvedModel, StageStatus, float]:
    """The model, if it is ready to load; else its identity, which costs no download.

    Raises:
        ModelError: there is no such model.
    """
    started = time.monotonic()
    if (found := ready(config, run.store.models)) is not None:
        return found, "cached", time.monotonic() - started
    name = identity(config)
    there = ResolvedModel(path="/", identity=name, source=pinned(config, name))
    return there, "ran", time.monotonic() - started
