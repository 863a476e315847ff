"""What can be found wrong before anything starts: contradicting settings, missing files, models, judges, ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from flows.base_models.resolve import BaseModelConfig
from flows.base_models.resolve import identity as model_identity
from flows.corpus.ladder import SplitConfig
from flows.corpus.sources import registry
from flows.corpus.sources.registry import Sources
from flows.cost.budget import problems as budget_problems
from flows.errors import ConfigError, FinetuneError
from flows.evaluation import embedders, judge
from flows.evaluation.config import EvaluationConfig
from flows.serving.config import ServeConfig
from flows.serving.records import load
from flows.serving.registry import RUNTIMES
from flows.serving.start import problems as serving_problems
from flows.stages.judge import judge_endpoint
from flows.stages.make import secret, team_problems
from flows.stages.notice_blocks import notice_problems
from flows.stages.placement import pool_problems
from flows.stages.registry import STAGES
from flows.stages.resources import Resources, StageResources, card_problems, machine_problems, problems, secret_blocks
from flows.stages.run_context import RunContext, RunOptions
from flows.stages.variants import Training, TrainingVariant, trainings
from flows.store.files import write_json
from flows.training.config import FinetuneConfig, PretrainConfig, TrainingSection, missing_packages
from flows.training.config import problems as training_problems


@dataclass(frozen=True)
class PlannedStage:
    """A stage as it can be looked at before anything runs.

    `settings` and `needs` are the paths of the fields that say how it works and what it needs, for errors; `split` is
    that of its data set.
    """

    kind: str
    config: BaseModel | None
    resources: StageResources
    settings: str
    needs: str
    split: SplitConfig | None = None


def preflight(
    run: RunContext,
    sources: Sources,
    split: SplitConfig,
    model: BaseModelConfig,
    pretrain: PretrainConfig,
    finetune: FinetuneConfig,
    variants: list[TrainingVariant],
    evaluation: EvaluationConfig,
    serve: ServeConfig,
    resources: Resources,
) -> None:
    """Find all problems of domain-adaptation, not only the first.

    Raises:
        ConfigError: there is at least one; a line each.
    """
    found = registry.problems(sources)
    if len(variants) > 1 and not split.dev:
        found.append("variants: which is best is decided on the dev share, and there is none. Raise split.dev.")
    if len(variants) > 1 and "evaluate" in run.options.skip:
        found.append("run.skip: without evaluate nothing says which of the variants is best.")
    wanted: list[Training] = []
    found += _words_of(lambda: wanted.extend(trainings(pretrain, finetune, variants)))
    wanted = wanted or [Training("", pretrain, finetune, [])]
    found += shared_problems(run, _plan(split, wanted, evaluation, resources), model, serve)
    if found:
        raise ConfigError(found)


def _plan(
    split: SplitConfig, wanted: list[Training], evaluation: EvaluationConfig, resources: Resources
) -> list[PlannedStage]:
    """The stages of domain-adaptation, those of each training."""
    needs = dict(resources.stages())

    def planned(kind: str, config: BaseModel | None, settings: str = "") -> PlannedStage:
        return PlannedStage(kind, config, needs[kind], settings, f"resources.{kind}", split)

    plan = [planned("prepare", None), planned("evaluate", evaluation, "evaluation")]
    for training in wanted:
        of = f"variants: {training.name}: " if training.name else ""
        plan.append(planned("pretrain", training.pretrain, f"{of}pretrain"))
        plan.append(planned("finetune", training.finetune, f"{of}finetune"))
    return plan


def shared_problems(
    run: RunContext, plan: Sequence[PlannedStage], model: BaseModelConfig | None, serve: ServeConfig
) -> list[str]:
    """What is wrong with any pipeline, as far as that shows before it runs, a line each.

    Args:
        run: the run; its folder in the store is made.
        plan: the stages that it would run.
        model: the base model, if it needs one.
        serve: where the model is served in the end.
    """
    found = budget_problems(run.budget, run.prices) + run_problems(run.options)
    found += needs_problems({stage.needs: stage.resources for stage in plan})
    found += [line for stage in plan for line in stage_problems(stage)]
    found += _words_of(lambda: check_store(run))
    if model is not None:
        found += _words_of(lambda: model_identity(model))
    found += _serve_problems(run, serve)
    return list(dict.fromkeys(found))  # variants share what they need


def stage_problems(stage: PlannedStage) -> list[str]:
    """What is wrong with one stage's settings, and with processes that would share its work, a line each."""
    config = stage.config
    found: list[str] = []
    if isinstance(config, PretrainConfig) and not config.enabled:
        return found
    if isinstance(config, TrainingSection):
        found += training_problems(config, stage.settings)
        if not stage.resources.work_pool:  # whose machine looks for itself
            found += missing_packages(config, stage.settings)
    if isinstance(config, EvaluationConfig):
        found += _evaluation_problems(config, stage.settings, stage.split)
    return found + team_problems(STAGES[stage.kind], config, stage.resources, stage.needs)


def _evaluation_problems(config: EvaluationConfig, where: str, split: SplitConfig | None) -> list[str]:
    found = []
    if config.split == "dev" and split is not None and split.protocol == "rows":
        found.append(f"{where}.split: the protocol rows has no dev share; take test, or the protocol ladder.")
    elif config.split == "dev" and split is not None and not split.dev:
        found.append(f"{where}.split: there is no dev share, split.dev is 0. Raise it, or take test.")
    checked = _words_of(lambda: embedders.check(config.embedder)) + _words_of(lambda: _check_judge(config.judge))
    # They name the fields of domain-adaptation. Not told the others: their code is a part of the key of evaluate.
    for name in ("embedder", "judge"):
        checked = [line.replace(f"evaluation.{name}", f"{where}.{name}") for line in checked]
    return found + checked


def _serve_problems(run: RunContext, serve: ServeConfig) -> list[str]:
    if not serve.enabled:
        return []
    if serve.runtime == "external":
        return ["serve.runtime: external is a server that has its model already; a trained one cannot go there."]
    return serving_problems(serve) + _words_of(lambda: _check_port(run, serve))


def _words_of(check: Callable[[], object]) -> list[str]:
    """What a check refuses, a line each."""
    try:
        check()
    except FinetuneError as error:
        return str(error).splitlines()
    return []


def needs_problems(needs: Mapping[str, StageResources]) -> list[str]:
    """What stages need and cannot get, as far as that shows from here, a line each; by the field that says it."""
    found: list[str] = []
    pools: dict[str, str] = {}
    for where, wanted in needs.items():
        found += problems(wanted, where)
        if wanted.work_pool:
            pools[f"{where}.work_pool"] = wanted.work_pool
            continue
        found += machine_problems(wanted, where) + card_problems(wanted, where)
        found += _secret_problems(wanted.env, where)
    return found + pool_problems(pools)


def run_problems(options: RunOptions) -> list[str]:
    """What is wrong with the variables of all stages and with the messages, a line each."""
    found = problems(StageResources(env=options.env), "run") + _secret_problems(options.env, "run")
    if options.only_if_changed and "evaluate" in options.skip:
        found.append(
            "run.only_if_changed: a run without evaluate leaves no report to go by. Take evaluate out of run.skip, or "
            "leave this off: finished stages come from the store anyway."
        )
    return found + notice_problems(options.notify)


def _secret_problems(lines: list[str], where: str) -> list[str]:
    found = []
    for variable, block in secret_blocks(lines).items():
        try:
            secret(block)
        except ConfigError as error:
            found.append(f"{where}.env: {variable}: {error}")
    return found


def check_store(run: RunContext) -> None:
    """Look at the store's layout, and write into the run's folder.

    Raises:
        ConfigError: the store is of a newer version of the project, or cannot be written to.
    """
    try:
        run.store.check()
        write_json(run.store.run(run.run_id) / "progress.json", {})
    except OSError as error:
        raise ConfigError(
            f"{run.store.field}: the folder {run.store.root} cannot be written to: {error.strerror}. "
            "Choose another one."
        ) from error


def _check_judge(block_name: str) -> None:
    endpoint, environment = judge_endpoint(block_name)
    if endpoint is not None:
        judge.check(endpoint, next(iter(environment.values())))


def _check_port(run: RunContext, serve: ServeConfig) -> None:
    """A port that the endpoint of this name itself holds is no obstacle: it is replaced."""
    old = load(run.store.endpoints, serve.name)
    if serve.port and (old is None or old.port != serve.port):
        RUNTIMES[serve.runtime].choose_port(serve.port)
