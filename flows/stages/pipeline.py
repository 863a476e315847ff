"""The stages of one run, to be called in the order in which a field's text becomes a measured model.

    line = Pipeline(current_run(run), resources)
    dataset = line.prepare(sources)
    start = line.base_model(model)
    studied = line.pretrain(PretrainConfig(), dataset, start)
    trained = line.finetune(FinetuneConfig(), dataset, studied)
    line.evaluate(EvaluationConfig(), dataset, start, trained)

Each call returns when its stage is done, and raises StageError when it cannot be. A second stage of a kind gets a name
of its own. What several threads call runs side by side (`branches.side_by_side`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel

from flows.base_models.resolve import BaseModelConfig, ResolvedModel
from flows.corpus.ladder import SplitConfig
from flows.corpus.prepare import PrepareConfig
from flows.corpus.sources.registry import Sources, named_files
from flows.evaluation import embedders
from flows.evaluation.config import EvaluateStageConfig, EvaluationConfig
from flows.reporting.contract import StageReport
from flows.shell.command import ShellConfig
from flows.stages import report as reports
from flows.stages.base_model_task import base_model
from flows.stages.call import StageCall
from flows.stages.judge import judge_endpoint
from flows.stages.resources import Resources, StageResources, secret_blocks
from flows.stages.run_context import RunContext
from flows.stages.stage_task import Outcome, run_stage
from flows.store.digest import file_digest
from flows.training.config import FinetuneConfig, PretrainConfig

Runner = Callable[[RunContext, StageCall], Outcome]
Fetcher = Callable[[RunContext, BaseModelConfig], tuple[ResolvedModel, str, float]]
Model = Outcome | ResolvedModel


class Pipeline:
    """One run's stages.

    Attributes:
        run: the run they belong to.
        stages: a line of the report for each, in the order in which they ended.
        outcomes: what each made, by its name.
    """

    def __init__(
        self,
        run: RunContext,
        resources: Resources = Resources(),
        runner: Runner = run_stage,
        fetcher: Fetcher = base_model,
        own: Mapping[str, StageResources] = MappingProxyType({}),
        always: Collection[str] = (),
    ) -> None:
        """`own` are resources by the name of a stage, before those of its kind; `always` names stages to run anyway."""
        self.run = run
        self.stages: list[StageReport] = []
        self.outcomes: dict[str, Outcome] = {}
        self._needs = dict(resources.stages())
        self._runner, self._fetcher = runner, fetcher
        self._own, self._always = own, always

    def prepare(self, sources: Sources, split: SplitConfig = SplitConfig(), name: str = "prepare") -> Outcome:
        """The data set of the sources: rows for training and for the test, by rung."""
        files = named_files(sources)
        contents = {key: file_digest(file) for key, file in files.items()}
        labels = {key: f"{file.parent.name}/{file.name}" for key, file in files.items()}
        made = self._stage("prepare", name, PrepareConfig(sources=sources, split=split), {}, contents, labels)
        if made.status == "ran" and made.figures.get("reworded_test") == 0:
            self.run.logger.warning(
                "%s: the test share has no reworded rows (split.reworded is %g), so nothing can show that the model "
                "learnt, and the gate will not pass. Raise it, or give more rows.",
                name,
                split.reworded,
            )
        return made

    def base_model(self, model: BaseModelConfig) -> ResolvedModel:
        """The model to start from, loadable."""
        found, status, seconds = self._fetcher(self.run, model)
        self.stages.append(StageReport(name="base-model", status=status, seconds=seconds))
        return found

    def pretrain(self, config: PretrainConfig, dataset: Outcome, model: Model, name: str = "pretrain") -> Outcome:
        """The model after reading the data set's texts (DAPT)."""
        return self._training("pretrain", name, config, dataset, model)

    def finetune(self, config: FinetuneConfig, dataset: Outcome, model: Model, name: str = "finetune") -> Outcome:
        """The model after learning to answer the data set's questions (SFT)."""
        return self._training("finetune", name, config, dataset, model)

    def evaluate(
        self, config: EvaluationConfig, dataset: Outcome, base: Model, trained: Outcome, name: str = "evaluate"
    ) -> Outcome:
        """Scores of two models on the held-out questions, and the difference."""
        judge, _ = judge_endpoint(config.judge)
        inputs = {"base": base, "dataset": dataset, "trained": trained}
        more = {"embedder": embedders.identity(config.embedder)}
        return self._stage("evaluate", name, EvaluateStageConfig(evaluation=config, judge=judge), inputs, more)

    def shell(
        self,
        command: str,
        before: Mapping[str, Outcome],
        files: Mapping[str, str] = MappingProxyType({}),
        data_folder: str = "",
        name: str = "shell",
    ) -> Outcome:
        """What a command of your own makes of the results before it.

        Args:
            command: for bash; the folders of `before` are in `$INPUT_<NAME>`, its own in `$OUTPUT`.
            before: stages whose results it may read, by the names under which it finds them.
            files: digests of what else it reads, by name: it runs again when one changes.
            data_folder: in `$DATA`.
            name: the stage's name.
        """
        lines = self._needs_of("shell", name).env
        secrets = sorted(secret_blocks(lines))
        config = ShellConfig(command=command, data_folder=data_folder, environment=lines, secrets=secrets)
        return self._stage("shell", name, config, before, files, {one: one for one in files})

    def skip(self, name: str, why: str) -> None:
        """Note a stage that is left out."""
        self.stages.append(StageReport(name=name, status="skipped", seconds=0.0, why=why))

    def needs(self, kind: str) -> StageResources:
        """What a stage of that kind needs."""
        return self._needs.get(kind, StageResources())

    def _needs_of(self, kind: str, name: str) -> StageResources:
        """With the variables of the whole run, which a stage may have otherwise."""
        needs = self._own.get(name, self.needs(kind))
        named = {line.partition("=")[0] for line in needs.env}
        wide = [line for line in self.run.options.env if line.partition("=")[0] not in named]
        return needs.model_copy(update={"env": [*wide, *needs.env]}) if wide else needs

    def _training(self, kind: str, name: str, config: BaseModel, dataset: Outcome, model: Model) -> Outcome:
        return self._stage(kind, name, config, {"dataset": dataset, "model": model})

    def _stage(
        self,
        kind: str,
        name: str,
        config: BaseModel,
        inputs: Mapping[str, Model],
        more: Mapping[str, str] = MappingProxyType({}),
        labels: dict[str, str] | None = None,
    ) -> Outcome:
        """`more` are digests of what it depends on besides its inputs."""
        needs, anew = self._needs_of(kind, name), name in self._always
        folders, digests = _folders(inputs), _digests(inputs) | dict(more)
        base_models = {key: one.source for key, one in inputs.items() if isinstance(one, ResolvedModel)}
        call = StageCall(name, config, folders, digests, kind, needs, labels or {}, anew, base_models)
        outcome = self._runner(self.run, call)
        self.outcomes[name] = outcome
        self.stages.append(reports.stage_report(outcome, self.run.run_id))
        return outcome


def _folders(inputs: Mapping[str, Model]) -> dict[str, Path]:
    """By the names that the work functions read them by."""
    return {name: Path(one.artifact.path if isinstance(one, Outcome) else one.path) for name, one in inputs.items()}


def _digests(inputs: Mapping[str, Model]) -> dict[str, str]:
    """A base model's has a name of its own."""
    return dict(
        (name, one.artifact.digest) if isinstance(one, Outcome) else ("base_model", one.identity)
        for name, one in inputs.items()
    )
