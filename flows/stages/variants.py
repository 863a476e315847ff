"""Several trainings from one run: what each of them does otherwise than the run's own settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic import Field

from flows.config import Config
from flows.errors import ConfigError
from flows.stages.overrides import checked, lay_over
from flows.training.config import FinetuneConfig, PretrainConfig

NAME = r"^[0-9a-z]([0-9a-z-]{0,30}[0-9a-z])?$"
STAGES = ("pretrain", "finetune")


class TrainingVariant(Config):
    """One more training, beside the others."""

    name: str = Field(
        pattern=NAME, title="Name", description="Lower-case letters, digits, dashes; stands in the table."
    )
    overrides: list[str] = Field(
        default=[],
        title="Otherwise",
        description="What it does otherwise, each as field=value: finetune.learning_rate=0.0001, finetune.lora.r=64, "
        "pretrain.enabled=false.",
    )


class Training(NamedTuple):
    """The settings of one training; `name` is empty where a run has no variants."""

    name: str
    pretrain: PretrainConfig
    finetune: FinetuneConfig
    overrides: list[str]

    def stage(self, kind: str) -> str:
        """The name of its stage of that kind."""
        return f"{kind}-{self.name}" if self.name else kind


def trainings(
    pretrain: PretrainConfig, finetune: FinetuneConfig, variants: Iterable[TrainingVariant]
) -> list[Training]:
    """The settings of all trainings of a run: of each variant, or the run's own if there are none.

    Raises:
        ConfigError: a name stands twice, or an override names no field or does not fit it; a line each.
    """
    found: list[Training] = []
    problems: list[str] = []
    names: set[str] = set()
    for number, variant in enumerate(variants):
        where = f"variants[{number}]"
        if variant.name in names:
            problems.append(f"{where}.name: {variant.name} stands there twice.")
        names.add(variant.name)
        try:
            found.append(_with_overrides(variant, pretrain, finetune, where))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return found or [Training("", pretrain, finetune, [])]


def _with_overrides(
    variant: TrainingVariant, pretrain: PretrainConfig, finetune: FinetuneConfig, where: str
) -> Training:
    values: dict[str, Any] = {"pretrain": pretrain.model_dump(), "finetune": finetune.model_dump()}
    at = f"{where}.overrides"
    whole = [line for line in variant.overrides if line.partition("=")[0].strip() in STAGES]
    problems = [f"{at}: {line!r} is a whole stage; name one of its settings." for line in whole]
    problems += lay_over(values, variant.overrides, at, "pretrain or finetune", "finetune.learning_rate=0.0001")
    if problems:
        raise ConfigError(problems)
    study, wrong_study = checked(PretrainConfig, values["pretrain"], at, "pretrain.")
    tune, wrong_tune = checked(FinetuneConfig, values["finetune"], at, "finetune.")
    if study is None or tune is None:
        raise ConfigError(wrong_study + wrong_tune)
    return Training(variant.name, study, tune, variant.overrides)
