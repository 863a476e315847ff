"""The main flow: from a field's own text to a measured, gated, served model.

prepare -> pretrain -> finetune -> evaluate -> gate -> report -> serve
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.base_models.resolve import BaseModelConfig
from flows.corpus.ladder import SplitConfig
from flows.corpus.prepare import PrepareConfig
from flows.corpus.sources.registry import Sources, named_files
from flows.errors import FinetuneError, is_disk_full
from flows.evaluation import embedders
from flows.evaluation.config import EvaluateStageConfig, EvaluationConfig, GatePolicy
from flows.reporting.contract import EndpointReport, RunReport, StageReport
from flows.reporting.markdown import verdict_line
from flows.serving.ask import curl_line
from flows.serving.config import ServeConfig
from flows.stages import report as reports
from flows.stages.base_model_task import base_model
from flows.stages.call import StageCall
from flows.stages.endpoints import page_url
from flows.stages.judge import judge_endpoint
from flows.stages.preflight import preflight
from flows.stages.resources import Resources
from flows.stages.run_context import RunContext, RunOptions, current_run
from flows.stages.serve import Served, serve_model
from flows.stages.stage_task import Outcome, StageError, run_stage
from flows.store.digest import file_digest
from flows.training.config import FinetuneConfig, PretrainConfig


@flow(name="domain-adaptation")
def domain_adaptation(
    sources: Sources,
    model: BaseModelConfig,
    split: SplitConfig = SplitConfig(),
    pretrain: PretrainConfig = PretrainConfig(),
    finetune: FinetuneConfig = FinetuneConfig(),
    evaluation: EvaluationConfig = EvaluationConfig(),
    gate: GatePolicy = GatePolicy(),
    serve: ServeConfig = ServeConfig(),
    run: RunOptions = RunOptions(),
    resources: Resources = Resources(),
) -> Any:
    """Adapt a language model to a field: train it on the field's text, measure what it learnt, serve it if it did.

    Args:
        sources: The field's own text: exams, glossaries, lecture transcripts, question/answer tables.
        model: The model to start from.
        split: How much is held out, and how; the report gives every figure for each kind of held-out question.
        pretrain: Reading the field's texts (DAPT). Optional.
        finetune: Learning to answer the field's questions (SFT).
        evaluation: Comparing the model before and after.
        gate: What the evaluation must show before the model is served.
        serve: Where the model is served when the gate passes.
        run: Title, store, and which stages to run anyway.
        resources: What each stage needs and in which work pool it runs.
    """
    context = current_run(run)
    outcomes: dict[str, Outcome] = {}
    stages: list[StageReport] = []
    try:
        preflight(context, sources, split, model, pretrain, finetune, evaluation, serve, resources)
        report = adapt_and_measure(
            context, outcomes, stages, sources, model, split, pretrain, finetune, evaluation, gate, resources
        )
        report = serve_if_passed(context, serve, report, outcomes)
    except FinetuneError as error:
        return reports.failed(context, stages, error.stage if isinstance(error, StageError) else "", str(error))
    except OSError as error:
        full = "the disk is full; free some space and run again: " if is_disk_full(error) else ""
        return reports.failed(context, stages, "", f"{full}{error}. The store is {context.store.root}.")
    reasons = "" if report.gate.passed else f" Nothing is served. {'; '.join(report.gate.reasons)}."
    return Completed(message=verdict_line(report) + reasons)


def adapt_and_measure(
    context: RunContext,
    outcomes: dict[str, Outcome],
    stages: list[StageReport],
    sources: Sources,
    model: BaseModelConfig,
    split: SplitConfig,
    pretrain: PretrainConfig,
    finetune: FinetuneConfig,
    evaluation: EvaluationConfig,
    gate: GatePolicy,
    resources: Resources,
) -> RunReport:
    """Prepare, pretrain, finetune, evaluate, gate; then the report, whatever the gate says.

    `outcomes` and `stages` are filled as it goes, so that a failed run can say how far it came.

    Raises:
        StageError: a stage failed; its message is for people.
    """

    needs = dict(resources.stages())

    def stage(name: str, config: Any, inputs: dict[str, Outcome], base: bool = False) -> Outcome:
        folders = {key: Path(outcome.artifact.path) for key, outcome in inputs.items()}
        digests = {key: outcome.artifact.digest for key, outcome in inputs.items()}
        if base:
            folders["base" if name == "evaluate" else "model"] = Path(start.path)
            digests["base_model"] = start.identity
        if name == "evaluate":
            digests["embedder"] = embedders.identity(evaluation.embedder)
        outcome = run_stage(context, StageCall(name, config, folders, digests, resources=needs[name]))
        outcomes[name] = outcome
        stages.append(reports.stage_report(outcome))
        return outcome

    files = named_files(sources)
    contents = {name: file_digest(file) for name, file in files.items()}
    labels = {name: f"{file.parent.name}/{file.name}" for name, file in files.items()}
    settings = PrepareConfig(sources=sources, split=split)
    prepare = StageCall("prepare", settings, {}, contents, resources=needs["prepare"], labels=labels)
    dataset = outcomes["prepare"] = run_stage(context, prepare)
    stages.append(reports.stage_report(dataset))

    start, status, seconds = base_model(context, model)
    stages.append(StageReport(name="base-model", status=status, seconds=seconds))

    studied = None
    if pretrain.enabled:
        studied = stage("pretrain", pretrain, {"dataset": dataset}, base=True)
    else:
        stages.append(StageReport(name="pretrain", status="skipped", seconds=0.0, why="pretrain.enabled is off"))

    if studied is not None:
        trained = stage("finetune", finetune, {"dataset": dataset, "model": studied})
    else:
        trained = stage("finetune", finetune, {"dataset": dataset}, base=True)

    judge, _ = judge_endpoint(evaluation.judge)
    measured = EvaluateStageConfig(evaluation=evaluation, judge=judge)
    stage("evaluate", measured, {"dataset": dataset, "trained": trained}, base=True)

    return reports.build_report(context, model.name, stages, outcomes, gate)


def serve_if_passed(
    context: RunContext, serve: ServeConfig, report: RunReport, outcomes: dict[str, Outcome]
) -> RunReport:
    """Write and show the report; promote the model if the gate passed, and write the report again with its endpoint.

    Raises:
        StageError: the endpoint did not become healthy, or a check through it refused the model; the report says so.
    """
    reports.write(context, report, outcomes)
    endpoint: EndpointReport | None = None
    failure: StageError | None = None
    served = Served()
    if not report.gate.passed or not serve.enabled:
        why = "serve.enabled is off" if report.gate.passed else "the gate did not pass: nothing is served"
        line = StageReport(name="serve", status="skipped", seconds=0.0, why=why)
        context.logger.info("serve: %s", why)
    else:
        try:
            evaluation = Path(outcomes["evaluate"].artifact.path)
            healthy = serve_model(context, serve, Path(report.trained_model_uri), evaluation, served)
            question = report.examples[-1].question if report.examples else "Hello?"
            endpoint = EndpointReport(
                name=healthy.name,
                url=healthy.public_url,
                state=healthy.state.value,
                model=healthy.model,
                curl=curl_line(healthy, question),
                page_url=page_url(),
            )
            line = StageReport(name="serve", status=served.status, seconds=served.seconds)
        except StageError as error:
            failure = error
            why = str(error).splitlines()[0]
            line = StageReport(name="serve", status="failed", seconds=served.seconds, why=why)
    report = reports.with_endpoint(report, endpoint, served.checks, line, time.monotonic() - context.started)
    reports.show(context, report, reports.write(context, report, outcomes))
    if failure is not None:
        raise failure
    return report
