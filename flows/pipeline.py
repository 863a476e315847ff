"""A pipeline of your own in the parameters of one flow: any stages, in any order, side by side where they can be."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.base_models.resolve import BaseModelConfig
from flows.corpus.ladder import SplitConfig
from flows.corpus.prepare import PrepareConfig
from flows.corpus.sources import registry
from flows.corpus.sources.registry import Sources
from flows.cost.budget import Budget
from flows.cost.prices import Prices
from flows.domain_adaptation import serve_if_passed
from flows.errors import ConfigError, FinetuneError
from flows.evaluation.config import GatePolicy
from flows.reporting.contract import RunReport
from flows.reporting.markdown import verdict_line
from flows.reporting.words import cached_words
from flows.serving.config import ServeConfig
from flows.stages import report as reports
from flows.stages.base_model_task import base_model
from flows.stages.endpoints import failed
from flows.stages.explanation import look, look_for_model
from flows.stages.graph import Node, OwnStage, nodes
from flows.stages.graph_run import Surroundings, run_graph
from flows.stages.notices import tell
from flows.stages.pipeline import Pipeline
from flows.stages.preflight import PlannedStage, shared_problems
from flows.stages.run_context import RunContext, RunOptions, current_run, give_up_after_crashes
from flows.stages.stage_task import StageError, run_stage
from flows.stages.trainings import Trained
from flows.stages.unchanged import ended_well, unchanged
from flows.stages.variants import Training
from flows.training.config import FinetuneConfig, PretrainConfig


@flow(name="pipeline", on_completion=[tell], on_failure=[tell])
def pipeline(
    stages: list[OwnStage],
    sources: Sources = Sources(),
    model: BaseModelConfig = BaseModelConfig(name="packaged:SmolLM2-135M-Instruct"),
    split: SplitConfig = SplitConfig(),
    gate: GatePolicy = GatePolicy(),
    serve: ServeConfig = ServeConfig(enabled=False),
    dry_run: bool = False,
    cost: Prices = Prices(),
    budget: Budget = Budget(),
    run: RunOptions = RunOptions(title="Pipeline"),
) -> Any:
    """Run stages of your own choice, each as soon as those before it are done; report the last evaluation.

    Args:
        stages: What is done, and after what; a shell stage is any command.
        sources: The field's own text, for the prepare stages.
        model: The base model, where a training or an evaluation starts from it.
        split: How much is held out, and how, for the prepare stages.
        gate: What the last evaluation must show before its model is served.
        serve: Where that model is served; off unless asked for.
        dry_run: Only say for every stage whether it would run, and why.
        cost: Prices, from which the report makes money.
        budget: What the run may cost; at its end training stops with a checkpoint.
        run: Title, description, store, environment of all stages.
    """
    try:
        context = current_run(run, cost, budget)
    except FinetuneError as error:
        return failed(error)
    line = Pipeline(context)
    try:
        give_up_after_crashes()
        graph = checked(context, stages, sources, model, split, serve)
        own = {node.name: node.stage.resources for node in graph}
        always = {node.name for node in graph if node.stage.always}
        asked = {"stages": stages, "gate": gate, "serve": serve}
        if run.only_if_changed and not dry_run:
            walk = partial(walk_to_the_end, graph=graph, model=model, data_folder=sources.folder)
            if nothing_to_do := unchanged(context, asked, walk, own, always):
                return nothing_to_do
        line = Pipeline(
            context,
            runner=look if dry_run else run_stage,
            fetcher=look_for_model if dry_run else base_model,
            own=own,
            always=always,
        )
        lost = walk_through(line, graph, model, sources.folder)
        if lost:
            words = "; ".join(f"{name}: {error}" for name, error in lost.items())
            return reports.failed(context, line.stages, "", words)
        if dry_run:
            return reports.explained(line.stages)
        end, report = measured(line, last_evaluation(graph, stages), model.name, gate, serve)
        ended_well(context, asked, report)
        return end
    except FinetuneError as error:
        return reports.failed(context, line.stages, error.stage if isinstance(error, StageError) else "", str(error))
    except OSError as error:
        return reports.failed_by_the_system(context, line.stages, error)


def checked(
    run: RunContext,
    stages: list[OwnStage],
    sources: Sources,
    model: BaseModelConfig,
    split: SplitConfig,
    serve: ServeConfig,
) -> list[Node]:
    """The pipeline, with everything looked at that can be before it runs.

    Raises:
        ConfigError: something cannot work; a line each.
    """
    found = option_problems(run.options, stages)
    graph: list[Node] = []
    try:
        graph = nodes(stages, sources, split)
    except ConfigError as error:
        found += error.problems
    needs_model = any(stage.kind != "shell" for stage in stages)
    found += shared_problems(run, planned(graph), model if needs_model else None, serve)
    # What a command makes beforehand is not there yet.
    if any(node.kind == "prepare" and not node.before and not node.stage.settings for node in graph):
        found += registry.problems(sources)
    if found:
        raise ConfigError(found)
    return graph


def option_problems(options: RunOptions, stages: list[OwnStage]) -> list[str]:
    """What `run` says of stages and cannot be meant of stages of one's own, a line each."""
    found: list[str] = []
    if options.skip:
        found.append("run.skip: it leaves stages out of domain-adaptation; here take them out of stages.")
    if options.from_stage:
        found.append(
            "run.from_stage: it goes by the order of domain-adaptation, and these stages have one of their own. Put "
            "always on those that are to run anyway, or name kinds in run.refresh."
        )
    kinds = {stage.kind for stage in stages}
    found += [f"run.refresh: no stage is of the kind {kind}." for kind in options.refresh if kind not in kinds]
    return found


def planned(graph: list[Node]) -> list[PlannedStage]:
    """The stages as they are looked at beforehand; an evaluation with the split of the data set that it reads."""
    by_name = {node.name: node for node in graph}

    def split_of(node: Node) -> SplitConfig | None:
        config = by_name[node.dataset].config if node.dataset else None
        return config.split if isinstance(config, PrepareConfig) else None

    return [
        PlannedStage(
            node.kind,
            node.config,
            node.stage.resources,
            settings=f"stages: {node.name}: settings",
            needs=f"stages: {node.name}: resources",
            split=split_of(node),
        )
        for node in graph
    ]


def walk_through(
    line: Pipeline, graph: list[Node], model: BaseModelConfig, data_folder: str
) -> dict[str, FinetuneError]:
    """Call every stage, as soon as those before it are done; what failed, by name."""
    base = line.base_model(model) if any(node.dataset for node in graph) else None
    return run_graph(line, graph, Surroundings(base, data_folder))


def walk_to_the_end(line: Pipeline, graph: list[Node], model: BaseModelConfig, data_folder: str) -> None:
    """The same where no stage may fail.

    Raises:
        FinetuneError: one did.
    """
    for error in walk_through(line, graph, model, data_folder).values():
        raise error


def last_evaluation(graph: list[Node], stages: list[OwnStage]) -> Node | None:
    """The evaluation that stands last in `stages`: the graph's order is only one of those in which they can run."""
    place = {stage.name: number for number, stage in enumerate(stages)}
    evaluations = [node for node in graph if node.kind == "evaluate"]
    return max(evaluations, key=lambda node: place[node.name], default=None)


def measured(
    line: Pipeline, last: Node | None, base_model_name: str, gate: GatePolicy, serve: ServeConfig
) -> tuple[Any, RunReport | None]:
    """The report of the last evaluation, and its model served if that is asked for; without one, what ran.

    Raises:
        StageError: the model could not be served.
    """
    if last is None:
        reports.show_stages(line.stages)
        words = f"{len(line.outcomes)} stages are done; none of them evaluates, so there is no report."
        return Completed(message=words), None
    trained = line.outcomes[last.model]
    # The report asks for the outcomes only, not for the settings of a training.
    best = Trained(Training(last.model, PretrainConfig(), FinetuneConfig(), []), None, trained)
    outcome = line.outcomes[last.name]
    report = reports.build_report(
        line, last.against or base_model_name, line.outcomes[last.dataset], best, outcome, [], gate
    )
    report = serve_if_passed(line.run, serve, report, {**line.outcomes, "evaluate": outcome})
    return Completed(message=f"{last.name}: {verdict_line(report)}{cached_words(report.stages)}"), report
