"""What a run of the main flow would do with these parameters, without doing it."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.base_models.resolve import BaseModelConfig
from flows.corpus.ladder import SplitConfig
from flows.corpus.sources.registry import Sources
from flows.cost.budget import Budget
from flows.cost.prices import Prices
from flows.errors import FinetuneError
from flows.evaluation.config import EvaluationConfig, GatePolicy
from flows.serving.config import ServeConfig
from flows.stages.endpoints import failed
from flows.stages.explanation import look, look_for_model
from flows.stages.pipeline import Pipeline
from flows.stages.preflight import preflight
from flows.stages.report import explained
from flows.stages.resources import Resources
from flows.stages.run_context import RunOptions, current_run
from flows.stages.trainings import train
from flows.stages.variants import TrainingVariant, trainings
from flows.training.config import FinetuneConfig, PretrainConfig


@flow(name="explain")
def explain(
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
    """Say for every stage of a run with these parameters whether it would run, and why; nothing is run.

    Args:
        sources: As in domain-adaptation, like all that follow: copy the parameters of a run here.
        model: The model to start from.
        split: How much is held out, and how.
        pretrain: Reading the field's texts.
        finetune: Learning to answer the field's questions.
        variants: Several trainings instead of one.
        evaluation: Comparing the model before and after.
        gate: It costs nothing, so nothing is said of it.
        serve: What serving checks is known only once there is a model; its settings are looked at.
        resources: What each stage needs, and in which work pool it would run.
        cost: Prices; they change nothing of what would run.
        budget: What a run may cost.
        run: Store, and which stages would run anyway.
    """
    try:
        context = current_run(run, cost, budget)
        line = Pipeline(context, resources, runner=look, fetcher=look_for_model)
        preflight(context, sources, split, model, pretrain, finetune, variants, evaluation, serve, resources)
        dataset = line.prepare(sources, split)
        start = line.base_model(model)
        wanted = trainings(pretrain, finetune, variants)
        for training in wanted:
            trained = train(line, training, dataset, start)
            if "evaluate" in run.skip:
                line.skip("evaluate", "left out: run.skip")
                continue
            dev = evaluation.model_copy(update={"split": "dev"}) if training.name else evaluation
            line.evaluate(dev, dataset, start, trained.finetune, name=training.stage("evaluate"))
    except (FinetuneError, OSError) as error:
        return failed(error)
    return explained(line.stages)
