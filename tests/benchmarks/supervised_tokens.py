"""Supervised tokens a second: the demo's recipe against the article's batch settings, on the demo's model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from flows.progress import silent
from flows.stages.run_child import run_child
from flows.training.config import FinetuneConfig
from tests.benchmarks.rows import Row, compare
from tests.benchmarks.training_data import demo_inputs, demo_parameters

NAME = "supervised-tokens"
WHERE = "demo recipe against batch 2 x 4, unpacked, checkpointing, LoRA r=256 on all projections; 0.2 epochs"
REPEATS = 3
ARTICLE = {
    "batch_size": 2,
    "accumulation": 4,
    "packing": False,
    "activation_checkpointing": True,
    "lora": {"r": 256, "alpha": 32, "dropout": 0.05},
}


def measure(workdir: Path) -> list[Row]:
    """Three runs each, in turns; start-up and saving are not counted."""
    inputs = demo_inputs(workdir / "data")
    demo = demo_parameters()["finetune"]
    ours, other = [], []
    for _ in range(REPEATS):
        ours.append(_speed({**demo, "epochs": 0.2}, inputs, workdir / "train"))
        threads = {"threads": demo.get("threads", 0)}
        other.append(_speed({**ARTICLE, **threads, "max_length": 512, "epochs": 0.2}, inputs, workdir / "train"))
    return [compare(NAME, WHERE, "tokens/s", ours, other)]


def _speed(settings: dict[str, Any], inputs: dict[str, Path], workdir: Path) -> float:
    shutil.rmtree(workdir, ignore_errors=True)
    texts = {name: str(path) for name, path in inputs.items()}
    section = FinetuneConfig.model_validate(settings)
    figures = run_child("flows.training.finetune:run", section, texts, workdir, silent, lambda line: None)
    return float(figures["supervised_tokens"]) / float(figures["seconds"])
