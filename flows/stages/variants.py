"""Several trainings from one run: what each of them does otherwise than the run's own settings."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, NamedTuple

import yaml
from pydantic import Field, ValidationError

from flows.config import Config
from flows.errors import ConfigError
from flows.training.config import FinetuneConfig, PretrainConfig

NAME = r"^[0-9a-z]([0-9a-z-]{0,30}[0-9a-z])?$"
STAGES: dict[str, type[Config]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}


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
    problems = []
    for number, line in enumerate(variant.overrides):
        path, equals, text = line.partition("=")
        keys = path.strip().split(".")
        at = f"{where}.overrides[{number}]: {line!r}"
        section: Any = values
        for key in keys[:-1]:
            section = section.get(key) if isinstance(section, dict) else None
        if not equals or len(keys) < 2 or not isinstance(section, dict) or keys[-1] not in section:
            problems.append(f"{at} names no setting of pretrain or finetune.{_hint(path, values)}")
            continue
        try:
            section[keys[-1]] = yaml.safe_load(text)
        except yaml.YAMLError:
            problems.append(f"{at}: the value cannot be read.")
    settings: dict[str, Any] = {}
    for stage, model in STAGES.items():
        try:
            settings[stage] = model.model_validate(values[stage])
        except ValidationError as error:
            for one in error.errors():
                field = ".".join(map(str, one["loc"]))
                problems.append(f"{where}.overrides: {stage}.{field}: {one['msg']} (given: {one['input']!r}).")
    if problems:
        raise ConfigError(problems)
    return Training(variant.name, settings["pretrain"], settings["finetune"], variant.overrides)


def _hint(path: str, values: dict[str, Any]) -> str:
    near = difflib.get_close_matches(path.strip(), list(_paths(values)), n=1)
    return f" Did you mean {near[0]}?" if near else " Write it as finetune.learning_rate=0.0001."


def _paths(values: dict[str, Any], before: str = "") -> Iterable[str]:
    for key, value in values.items():
        yield f"{before}{key}"
        if isinstance(value, dict):
            yield from _paths(value, f"{before}{key}.")
