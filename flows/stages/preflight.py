"""What can be found wrong before anything starts: contradicting settings, missing files, models, judges, ports."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
from flows.stages.make import secret
from flows.stages.notice_blocks import notice_problems
from flows.stages.placement import pool_problems
from flows.stages.resources import Resources, StageResources, card_problems, machine_problems, problems, secret_blocks
from flows.stages.run_context import RunContext, RunOptions
from flows.stages.variants import TrainingVariant, trainings
from flows.store.files import write_json
from flows.training.config import FinetuneConfig, PretrainConfig
from flows.training.config import problems as training_problems


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
    """Find all problems, not only the first.

    Raises:
        ConfigError: there is at least one; a line each.
    """
    found = registry.problems(sources)
    if split.protocol == "rows" and evaluation.split == "dev":
        found.append("evaluation.split: the protocol rows has no dev share; take test, or the protocol ladder.")
    if serve.enabled and serve.runtime == "external":
        found.append("serve.runtime: external is a server that has its model already; a trained one cannot go there.")
    elif serve.enabled:
        found += serving_problems(serve)
    found += training_problems(pretrain, "pretrain") + training_problems(finetune, "finetune")
    if len(variants) > 1 and not split.dev:
        found.append("variants: which is best is decided on the dev share, and there is none. Raise split.dev.")
    if len(variants) > 1 and "evaluate" in run.options.skip:
        found.append("run.skip: without evaluate nothing says which of the variants is best.")
    found += budget_problems(run.budget, run.prices)
    found += run_problems(run.options) + resource_problems(resources)
    checks: list[Callable[[], object]] = [
        lambda: trainings(pretrain, finetune, variants),
        lambda: check_store(run),
        lambda: model_identity(model),
        lambda: embedders.check(evaluation.embedder),
        lambda: _check_judge(evaluation.judge),
        lambda: _check_port(run, serve),
    ]
    for check in checks:
        try:
            check()
        except FinetuneError as error:
            found += str(error).splitlines()
    if found:
        raise ConfigError(found)


def resource_problems(resources: Resources) -> list[str]:
    """What the stages need and cannot get, as far as that shows from here, a line each."""
    return needs_problems((f"resources.{name}", wanted) for name, wanted in resources.stages())


def needs_problems(needs: Iterable[tuple[str, StageResources]]) -> list[str]:
    """The same of any stages: each with the path of the field that says what it needs."""
    found: list[str] = []
    pools: dict[str, str] = {}
    for where, wanted in needs:
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
    if serve.enabled and serve.port and (old is None or old.port != serve.port):
        RUNTIMES[serve.runtime].choose_port(serve.port)
