"""One training of a run, or several side by side (variants): trained, compared on the dev share, the best goes on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flows.base_models.resolve import ResolvedModel
from flows.errors import FinetuneError
from flows.evaluation.config import EvaluationConfig
from flows.evaluation.results import Evaluation, RungSemScore
from flows.reporting.contract import VariantReport
from flows.stages.branches import side_by_side
from flows.stages.pipeline import Pipeline
from flows.stages.stage_task import Outcome, StageError
from flows.stages.variants import Training

MOST_AT_ONCE = 32


@dataclass(frozen=True)
class Trained:
    """What one training made: its stages, without those that were left out."""

    training: Training
    pretrain: Outcome | None
    finetune: Outcome


def train(line: Pipeline, training: Training, dataset: Outcome, start: ResolvedModel) -> Trained:
    """Pretrain, if it is on, then finetune.

    Raises:
        StageError: one of them failed.
    """
    studied: Outcome | None = None
    if "pretrain" in line.run.options.skip:
        line.skip(training.stage("pretrain"), "left out: run.skip")
    elif training.pretrain.enabled:
        studied = line.pretrain(training.pretrain, dataset, start, name=training.stage("pretrain"))
    else:
        line.skip(training.stage("pretrain"), "pretrain.enabled is off")
    trained = line.finetune(training.finetune, dataset, studied or start, name=training.stage("finetune"))
    return Trained(training, studied, trained)


def train_the_best(
    line: Pipeline,
    all_trainings: list[Training],
    dataset: Outcome,
    start: ResolvedModel,
    evaluation: EvaluationConfig,
) -> tuple[Trained, list[VariantReport]]:
    """All trainings, and the one whose gain on the dev share is greatest; of one training, that one, not compared.

    Which is best is decided on the dev share, never on the test share: the best of several test scores would flatter.
    One that fails does not stop the others.

    Raises:
        StageError: all of them failed.
    """
    if len(all_trainings) == 1:
        return train(line, all_trainings[0], dataset, start), []
    works = {one.name: partial(_train_and_score, line, one, dataset, start, evaluation) for one in all_trainings}
    done, failed = side_by_side(line.run, works, _at_once(line))
    if not done:
        raise StageError("variants", "; ".join(f"{name}: {error}" for name, error in failed.items()))
    best = max(done, key=lambda name: done[name][1].delta.mean)
    return done[best][0], [_line(one, done, failed, best) for one in all_trainings]


def _train_and_score(
    line: Pipeline, training: Training, dataset: Outcome, start: ResolvedModel, evaluation: EvaluationConfig
) -> tuple[Trained, RungSemScore]:
    trained = train(line, training, dataset, start)
    dev = evaluation.model_copy(update={"split": "dev"})
    outcome = line.evaluate(dev, dataset, start, trained.finetune, name=training.stage("evaluate"))
    text = (Path(outcome.artifact.path) / "evaluation.json").read_text("utf-8")
    score = Evaluation.model_validate_json(text).metrics.semscore.reworded
    if score is None:
        raise StageError(
            training.stage("evaluate"),
            "There are no reworded rows in the dev share, on which variants are compared. Raise split.dev.",
        )
    return trained, score


def _line(
    training: Training,
    done: dict[str, tuple[Trained, RungSemScore]],
    failed: dict[str, FinetuneError],
    best: str,
) -> VariantReport:
    if training.name in failed:
        return VariantReport(name=training.name, overrides=training.overrides, why=str(failed[training.name]))
    trained, score = done[training.name]
    return VariantReport(
        name=training.name,
        overrides=training.overrides,
        n=score.n,
        trained=score.trained,
        delta=score.delta,
        seconds=trained.finetune.figures.get("stage_seconds"),
        chosen=training.name == best,
        model=trained.finetune.artifact.path,
    )


def _at_once(line: Pipeline) -> int:
    """As asked, else all that have a work pool or cards of their own, else one."""
    needs = line.needs("finetune")
    return line.run.options.at_once or (MOST_AT_ONCE if needs.work_pool or needs.gpus else 1)
