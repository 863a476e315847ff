"""What the training benchmarks train on: the demo's model and data set, or a small part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from flows.base_models.resolve import BaseModelConfig, resolve
from flows.corpus.prepare import PrepareConfig
from flows.corpus.prepare import run as prepare
from flows.progress import silent

CHECKOUT = Path(__file__).parents[2]
MODELS = CHECKOUT / "build" / "store" / "models"


def demo_parameters() -> dict[str, Any]:
    """The parameters of the deployment `demo` in prefect.yaml."""
    deployments = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text("utf-8"))["deployments"]
    parameters: dict[str, Any] = next(d["parameters"] for d in deployments if d["name"] == "demo")
    return parameters


def demo_inputs(workdir: Path) -> dict[str, Path]:
    """The demo's base model and prepared data set."""
    demo = demo_parameters()
    prepare(PrepareConfig.model_validate({"sources": demo["sources"], "split": demo["split"]}), {}, workdir, silent)
    return {"dataset": workdir / "output", "model": Path(resolve(BaseModelConfig(**demo["model"]), MODELS).path)}
