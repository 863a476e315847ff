"""The report of a run: put together from the stages' outcomes, written to the store, shown in the Prefect UI."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.states import Completed, Failed, State

from flows.corpus.row import HELD_OUT_RUNGS
from flows.cost import ledger
from flows.cost.cost import Cost, total
from flows.cost.prices import priced
from flows.errors import FinetuneError, system_words
from flows.evaluation.config import GatePolicy
from flows.evaluation.gate import decide
from flows.evaluation.results import Evaluation
from flows.reporting.contract import (
    CheckReport,
    CostReport,
    DataReport,
    EndpointReport,
    GateReport,
    RunReport,
    StageReport,
    TrainingReport,
    VariantReport,
)
from flows.reporting.explanation import explanation_line, explanation_markdown
from flows.reporting.markdown import summary_markdown, verdict_line
from flows.reporting.words import COST_HEAD, DASH, cost_cells, cost_line, saved_words
from flows.reporting.write import write_report
from flows.stages.run_context import RunContext
from flows.stages.runs import refresh_runs
from flows.stages.stage_task import Outcome
from flows.store.files import read_json, write_atomically, write_json

if TYPE_CHECKING:
    from flows.stages.pipeline import Pipeline
    from flows.stages.trainings import Trained

LIBRARIES = ["prefect-finetune", "prefect", "torch", "transformers", "trl", "peft", "datasets", "sentence-transformers"]


def failed(run: RunContext, stages: list[StageReport], stage: str, message: str) -> State[Any]:
    """What a run that failed leaves: how far it came, in `failure.json` and as artifacts; and its state."""
    done = [*stages, StageReport(name=stage, status="failed", seconds=0.0, why=message)] if stage else stages
    done = with_costs(run, done)
    words = f"{stage}: {message}" if stage else message
    failure = {
        "run_id": run.run_id,
        "run_name": run.run_name,
        "run_url": run.run_url,
        "line": run.line,
        "title": run.options.title,
        "created": _now(),
        "message": words,
        "stages": [line.model_dump() for line in done],
        "cost": cost(run, done, []).model_dump(),
    }
    with contextlib.suppress(OSError, FinetuneError):  # the store itself may be what is wrong
        write_json(run.store.run(run.run_id) / "failure.json", failure)
        run.store.share_run(run.run_id)
    create_markdown_artifact(f"# Failed\n\n{words}", key="failure", description=words[:200])
    if done:
        create_table_artifact(_stages(done), key="stages", description="How far the run came")
    refresh_runs(run.store)
    return Failed(message=words)


def failed_by_the_system(run: RunContext, stages: list[StageReport], error: OSError) -> State[Any]:
    """The same where the machine refused a file or a folder, or has no room left."""
    return failed(run, stages, "", f"{system_words(error)} The store is {run.store.root}.")


def stage_report(outcome: Outcome, run_id: str = "") -> StageReport:
    """One line of the stages table; what the run `run_id` has made itself, before a crash, saved it nothing."""
    cached = outcome.status == "cached"
    own = not cached or outcome.maker["run_id"] == run_id
    cost = Cost.model_validate(outcome.figures["cost"]) if "cost" in outcome.figures else None
    return StageReport(
        name=outcome.stage,
        status=outcome.status,
        seconds=outcome.seconds,
        why=outcome.why,
        from_run=outcome.maker["run_name"] if cached else None,
        from_run_url=outcome.maker["run_url"] or None if cached else None,
        cost=cost if own and not cached else None,
        saved=None if own else cost,
    )


def training_report(outcome: Outcome) -> TrainingReport:
    """What a training stage did, from its figures."""
    names = TrainingReport.model_fields.keys() - {"stage"}
    return TrainingReport(stage=outcome.stage, **{name: outcome.figures[name] for name in names})


def cost(run: RunContext, stages: list[StageReport], outcomes: list[Outcome]) -> CostReport:
    """What this run itself cost, all attempts of its stages since it was first started."""
    ran = [outcome.figures for outcome in outcomes if outcome.status == "ran"]
    peaks = [figures["peak_memory_gib"] for figures in ran if "peak_memory_gib" in figures]
    spent = priced(total(_spent(run, stages).values()), run.prices)
    saved = [stage.saved for stage in stages if stage.saved is not None]
    return CostReport(
        seconds=time.monotonic() - run.started,
        work_seconds=spent.seconds,
        currency=run.prices.currency if run.prices.given else "",
        trained_tokens=sum(figures.get("tokens_this_time", 0) for figures in ran),
        peak_memory_gib=max(peaks) if peaks else None,
        saved=priced(total(saved), run.prices) if saved else None,
        **spent.model_dump(exclude={"seconds"}),
    )


def _spent(run: RunContext, stages: list[StageReport]) -> dict[str, Cost]:
    """What each stage has cost this run: by its ledger, or by its result if that was made on another machine."""
    return {stage.name: stage.cost for stage in stages if stage.cost is not None} | ledger.by_stage(run.ledger)


def with_costs(run: RunContext, stages: list[StageReport]) -> list[StageReport]:
    """The stages with what each has cost this run, by its prices."""
    spent = _spent(run, stages)

    def money(cost: Cost | None) -> Cost | None:
        return None if cost is None else priced(cost, run.prices)

    costs = [{"cost": money(spent.get(stage.name)), "saved": money(stage.saved)} for stage in stages]
    return [stage.model_copy(update=cost) for stage, cost in zip(stages, costs, strict=True)]


def build_report(
    line: Pipeline,
    base_model: str,
    dataset: Outcome,
    best: Trained,
    measured: Outcome,
    compared: list[VariantReport],
    gate: GatePolicy,
) -> RunReport:
    """Everything the run found and what the gate says of it, before anything is served."""
    run = line.run
    stages = with_costs(run, line.stages)
    evaluation_file = Path(measured.artifact.path) / "evaluation.json"
    evaluation = Evaluation.model_validate_json(evaluation_file.read_text("utf-8"))
    data = {name: value for name, value in dataset.figures.items() if name in DataReport.model_fields}
    return RunReport(
        run_id=run.run_id,
        run_name=run.run_name,
        run_url=run.run_url,
        line=run.line,
        title=run.options.title,
        description=run.options.description,
        created=_now(),
        base_model=base_model,
        trained_model_uri=best.finetune.artifact.path,
        stages=stages,
        split=evaluation.split,
        data=DataReport.model_validate(data),
        training=[training_report(one) for one in (best.pretrain, best.finetune) if one is not None],
        metrics=evaluation.metrics,
        generation=evaluation.generation,
        examples=evaluation.examples,
        gate=GateReport(**decide(evaluation.metrics, gate, evaluation.split).model_dump()),
        variants=compared,
        warnings=_undecided(compared),
        endpoint=None,
        cost=cost(run, stages, list(line.outcomes.values())),
        versions={"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in LIBRARIES},
    )


def _undecided(compared: list[VariantReport]) -> list[str]:
    """That the best of the variants is no better than another one, if so."""
    gains = {one.name: one.delta.mean for one in compared if one.delta is not None}
    chosen = next((one for one in compared if one.chosen), None)
    equal = [name for name, gain in gains.items() if chosen and name != chosen.name and gain == gains[chosen.name]]
    if not chosen or not equal:
        return []
    return [
        f"On the dev share ({chosen.n} reworded rows) {chosen.name} gains no more than {', '.join(equal)}: it is only "
        "the first of them. A greater split.dev or split.reworded compares them on more rows."
    ]


def unmeasured(line: Pipeline, trained: Trained) -> State[Any]:
    """What a run without evaluation leaves: a manifest and the table of stages; and its state."""
    _write_manifest(line.run, line.outcomes, trained.finetune.artifact.path)
    line.run.store.share_run(line.run.run_id)
    create_table_artifact(_stages(line.stages), key="stages", description="What ran, what was cached, and why")
    return Completed(message=f"Trained and not evaluated, so nothing is served: {trained.finetune.artifact.path}")


def show_stages(stages: list[StageReport]) -> None:
    """The table of stages alone, of a run without a report."""
    create_table_artifact(_stages(stages), key="stages", description="What ran, what was cached, and why")


def explained(stages: list[StageReport]) -> State[Any]:
    """What would become of the stages, of a run that only says so: as an artifact, and its state."""
    line = explanation_line(stages)
    create_markdown_artifact(explanation_markdown(stages), key="explanation", description=line)
    return Completed(message=line)


def with_endpoint(
    report: RunReport, endpoint: EndpointReport | None, checks: list[CheckReport], stage: StageReport, seconds: float
) -> RunReport:
    """The report once it is known whether and where the model is served, and what its live endpoint had to show."""
    now = {"endpoint": endpoint, "promotion": checks, "stages": [*report.stages, stage]}
    return report.model_copy(update={**now, "cost": report.cost.model_copy(update={"seconds": seconds})})


def write(run: RunContext, report: RunReport, outcomes: dict[str, Outcome]) -> Path:
    """Write the run's folder in the store: report, plots, predictions and a manifest; returns the folder."""
    folder = run.store.run(run.run_id)
    write_report(report, folder)
    evaluation = Path(outcomes["evaluate"].artifact.path)
    write_atomically(folder / "predictions.parquet", (evaluation / "predictions.parquet").read_bytes())
    _write_manifest(run, outcomes, report.trained_model_uri)
    run.store.share_run(run.run_id)
    return folder


def _write_manifest(run: RunContext, outcomes: dict[str, Outcome], model: str) -> None:
    manifest = {
        "run_id": run.run_id,
        "run_url": run.run_url,
        "artifacts": {name: outcome.artifact.model_dump() for name, outcome in outcomes.items()},
        "model": model,
        "made_by": {name: outcome.maker for name, outcome in outcomes.items()},
    }
    write_json(run.store.run(run.run_id) / "manifest.json", manifest)


def show(run: RunContext, report: RunReport, folder: Path) -> None:
    """The report as Prefect artifacts: summary with plot, tables, a link to the page; and the page of all runs."""
    verdict = verdict_line(report)
    create_markdown_artifact(summary_markdown(report, folder / "semscore.png"), key="report", description=verdict)
    create_table_artifact(_scores(report), key="semscore", description="SemScore per rung, base against trained")
    create_table_artifact(_stages(report.stages), key="stages", description="What ran, what was cached, and why")
    create_table_artifact(_costs(report), key="cost", description=f"What it cost: {cost_line(report.cost)}")
    # No link: a browser follows none from a server's page to a file.
    page = folder / "report.html"
    words = f"Open this file in a browser, on the machine of the store or after copying it:\n\n`{page}`"
    create_markdown_artifact(words, key="report-page", description=f"The whole report: {page}")
    if report.endpoint is not None:
        create_link_artifact(
            report.endpoint.url,
            link_text=report.endpoint.name,
            key="endpoint",
            description=f"{report.endpoint.name}: {report.endpoint.state}",
        )
    refresh_runs(run.store)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _scores(report: RunReport) -> list[dict[str, Any]]:
    table = []
    for rung in HELD_OUT_RUNGS:
        score = getattr(report.metrics.semscore, rung)
        if score is not None:
            low, high = score.delta.ci95
            table.append(
                {
                    "rung": rung,
                    "rows": score.n,
                    "base": round(score.base.mean, 3),
                    "trained": round(score.trained.mean, 3),
                    "change": round(score.delta.mean, 3),
                    "95 % interval": f"{low:+.3f} to {high:+.3f}",
                    "floor": round(score.floor, 3),
                    "ceiling": round(score.ceiling, 3),
                }
            )
    return table


def _stages(stages: list[StageReport]) -> list[dict[str, Any]]:
    return [
        {
            "stage": s.name,
            "status": s.status,
            "seconds": round(s.seconds, 1),
            "why": s.why,
            "from run": s.from_run or "",
        }
        for s in stages
    ]


def _costs(report: RunReport) -> list[dict[str, Any]]:
    currency = report.cost.currency
    none = [DASH] * len(COST_HEAD)
    return [
        {
            "stage": stage.name,
            **dict(zip(COST_HEAD, cost_cells(stage.cost, currency) if stage.cost else none, strict=True)),
            "cached": saved_words(stage.saved, currency) if stage.saved and not stage.cost else "",
        }
        for stage in report.stages
        if stage.cost or stage.saved
    ]


def report_of(folder: Path) -> RunReport | None:
    """The report in a run's folder; None if there is none."""
    found = read_json(folder / "report.json")
    return RunReport.model_validate(found) if found else None
