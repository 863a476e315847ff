"""The main flow: from a field's own text to a measured, gated, served model.

prepare -> pretrain -> finetune -> evaluate -> gate -> report -> serve
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.base_models.resolve import BaseModelConfig
from flows.corpus.ladder import SplitConfig
from flows.corpus.sources.registry import Sources
from flows.cost.budget import Budget
from flows.cost.prices import Prices
from flows.errors import FinetuneError
from flows.evaluation.config import EvaluationConfig, GatePolicy
from flows.reporting.contract import EndpointReport, RunReport, StageReport, VariantReport
from flows.reporting.markdown import verdict_line
from flows.reporting.words import cached_words
from flows.serving.ask import curl_line
from flows.serving.config import ServeConfig
from flows.stages import report as reports
from flows.stages.endpoints import failed, page_url
from flows.stages.notices import tell
from flows.stages.pipeline import Pipeline
from flows.stages.preflight import preflight
from flows.stages.resources import Resources
from flows.stages.run_context import RunContext, RunOptions, current_run, give_up_after_crashes
from flows.stages.serve import Served, serve_model
from flows.stages.stage_task import Outcome, StageError
from flows.stages.trainings import Trained, train, train_the_best
from flows.stages.unchanged import ended_well, unchanged
from flows.stages.variants import Training, TrainingVariant, trainings
from flows.training.config import FinetuneConfig, PretrainConfig


@flow(name="domain-adaptation", on_completion=[tell], on_failure=[tell])
def domain_adaptation(
    sources: Sources,
    model: BaseModelConfig,
    split: SplitConfig = SplitConfig(),
    pretrain: PretrainConfig = PretrainConfig(),
    finetune: FinetuneConfig = FinetuneConfig(),
    variants: list[TrainingVariant] = [],
    evaluation: EvaluationConfig = EvaluationConfig(),
    gate: GatePolicy = GatePolicy(),
    serve: ServeConfig = ServeConfig(),
    resources: Resources = Resources(),
    cost: Prices = Prices(),
    budget: Budget = Budget(),
    run: RunOptions = RunOptions(),
) -> Any:
    """Adapt a language model to a field: train it on the field's text, measure what it learnt, serve it if it did.

    Args:
        sources: The field's own text: exams, glossaries, lecture transcripts, question/answer tables.
        model: The model to start from.
        split: How much is held out, and how; the report gives every figure for each kind of held-out question.
        pretrain: Reading the field's texts (DAPT). Optional.
        finetune: Learning to answer the field's questions (SFT).
        variants: Several trainings instead of one, each with settings of its own; the best on the dev share goes on.
        evaluation: Comparing the model before and after.
        gate: What the evaluation must show before the model is served.
        serve: Where the model is served when the gate passes.
        resources: What each stage needs, and in which work pool it runs.
        cost: Prices, from which the report makes money.
        budget: What the run may cost; at its end training stops with a checkpoint.
        run: Title, store, and which stages to run anyway.
    """
    try:
        context = current_run(run, cost, budget)
    except FinetuneError as error:
        return failed(error)
    line = Pipeline(context, resources)
    try:
        give_up_after_crashes()
        preflight(context, sources, split, model, pretrain, finetune, variants, evaluation, serve, resources)
        wanted = trainings(pretrain, finetune, variants)
        asked = {"gate": gate, "serve": serve}
        if run.only_if_changed:
            walk = partial(train_and_evaluate, sources=sources, model=model, split=split, wanted=wanted)
            if nothing_to_do := unchanged(context, asked, partial(walk, evaluation=evaluation)):
                return nothing_to_do
        if "evaluate" in run.skip:
            return train_only(line, sources, model, split, wanted[0])
        report = adapt_and_measure(line, sources, model, split, wanted, evaluation, gate)
        report = serve_if_passed(context, serve, report, line.outcomes)
        ended_well(context, asked, report)
    except FinetuneError as error:
        return reports.failed(context, line.stages, error.stage if isinstance(error, StageError) else "", str(error))
    except OSError as error:
        return reports.failed_by_the_system(context, line.stages, error)
    reasons = "" if report.gate.passed else f" Nothing is served. {'; '.join(report.gate.decisive)}."
    return Completed(message=f"{verdict_line(report)}{reasons}{cached_words(report.stages)}")


def train_only(line: Pipeline, sources: Sources, model: BaseModelConfig, split: SplitConfig, training: Training) -> Any:
    """Prepare, pretrain, finetune: a model of which nothing is known, so nothing is served.

    Raises:
        StageError: a stage failed; its message is for people.
    """
    dataset = line.prepare(sources, split)
    trained = train(line, training, dataset, line.base_model(model))
    line.skip("evaluate", "left out: run.skip")
    return reports.unmeasured(line, trained)


def adapt_and_measure(
    line: Pipeline,
    sources: Sources,
    model: BaseModelConfig,
    split: SplitConfig,
    wanted: list[Training],
    evaluation: EvaluationConfig,
    gate: GatePolicy,
) -> RunReport:
    """Prepare, pretrain, finetune, evaluate, gate; then the report, whatever the gate says.

    Raises:
        StageError: a stage failed; its message is for people.
    """
    dataset, best, compared, measured = train_and_evaluate(line, sources, model, split, wanted, evaluation)
    return reports.build_report(line, model.name, dataset, best, measured, compared, gate)


def train_and_evaluate(
    line: Pipeline,
    sources: Sources,
    model: BaseModelConfig,
    split: SplitConfig,
    wanted: list[Training],
    evaluation: EvaluationConfig,
) -> tuple[Outcome, Trained, list[VariantReport], Outcome]:
    """Prepare, pretrain, finetune, evaluate; the data set, the best training, the comparison of all, the evaluation.

    Raises:
        StageError: a stage failed; its message is for people.
    """
    dataset = line.prepare(sources, split)
    start = line.base_model(model)
    best, compared = train_the_best(line, wanted, dataset, start, evaluation)
    return dataset, best, compared, line.evaluate(evaluation, dataset, start, best.finetune)


def serve_if_passed(
    context: RunContext, serve: ServeConfig, report: RunReport, outcomes: dict[str, Outcome]
) -> RunReport:
    """Promote the model if the gate passed; write and show the report, with its endpoint.

    Raises:
        StageError: the endpoint did not become healthy, or a check through it refused the model; the report says so.
    """
    endpoint: EndpointReport | None = None
    failure: StageError | None = None
    served = Served()
    if not report.gate.passed or not serve.enabled:
        why = "serve.enabled is off" if report.gate.passed else "the gate did not pass: nothing is served"
        line = StageReport(name="serve", status="skipped", seconds=0.0, why=why)
        context.logger.info("serve: %s", why)
    else:
        reports.write(context, report, outcomes)  # a start may take long, or be killed
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
