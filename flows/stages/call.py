"""One call of a stage: what it runs on, and what its output depends on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.base_models.resolve import BaseModelConfig
from flows.stages.keys import cache_key, dependencies
from flows.stages.registry import STAGES, Stage
from flows.stages.resources import StageResources


@dataclass(frozen=True)
class StageCall:
    """One call of a stage.

    `inputs` are folders it reads; `digests` name, by content, what the output depends on besides the config; `kind` is
    the stage's name in the registry where its own name is another, as of a second training; `resources` are no part
    of the key: a model is the same wherever it was trained; `labels` are what people call an input, as a file's path;
    `anew` asks for it to run although its result is there; `base_models` are the inputs that are base models, by name:
    a machine that lacks the folder makes its own from these.
    """

    name: str
    config: BaseModel
    inputs: dict[str, Path]
    digests: dict[str, str]
    kind: str = ""
    resources: StageResources = field(default_factory=StageResources)
    labels: dict[str, str] = field(default_factory=dict)
    anew: bool = False
    base_models: dict[str, BaseModelConfig] = field(default_factory=dict)

    @property
    def stage(self) -> Stage:
        """The stage as the registry knows it."""
        return STAGES[self.kind or self.name]

    @property
    def needs(self) -> str:
        """The parameter that its resources come from: of a kind of stages, or of a stage of one's own."""
        kind = self.stage.name
        own = self.name != kind and not self.name.startswith(f"{kind}-")
        return f"stages: {self.name}: resources" if own else f"resources.{kind}"

    @cached_property
    def depends_on(self) -> dict[str, Any]:
        """Everything that can change the output."""
        return dependencies(self.stage, self.config, self.digests)

    @cached_property
    def key(self) -> str:
        """The cache key."""
        return cache_key(self.stage, self.depends_on)
