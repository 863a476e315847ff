"""The finetune stage: supervised fine-tuning (SFT) on the trained rows of the ladder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.corpus.row import read_rows
from flows.progress import Progress
from flows.training.chat import conversation
from flows.training.config import FinetuneConfig
from flows.training.engine import train


def run(config: FinetuneConfig, inputs: Mapping[str, Path], workdir: Path, progress: Progress) -> dict[str, Any]:
    """Train the model in `inputs["model"]` on the training rows of `inputs["dataset"]`; model to `workdir/output`.

    Returns:
        The figures of `flows.training.engine.train`, which also names what it raises.
    """
    examples = [conversation(row) for row in read_rows(inputs["dataset"], "train")]
    return train(config, inputs["model"], examples, workdir, progress)
