"""The pretrain stage: continual pre-training on the field's plain text (DAPT).

Source: Gururangan et al. 2020, Don't Stop Pretraining, arXiv 2004.10964.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.corpus.row import read_documents
from flows.progress import Progress
from flows.training.config import PretrainConfig
from flows.training.engine import train
from flows.training.loading import load_tokenizer
from flows.training.texts import cut_text

# TRL adds an end-of-text token to each piece, the tokenizer a begin-of-text one.
SPECIAL_TOKENS = 2


def run(config: PretrainConfig, inputs: Mapping[str, Path], workdir: Path, progress: Progress) -> dict[str, Any]:
    """Train the model in `inputs["model"]` on the documents of `inputs["dataset"]`; model to `workdir/output`.

    Returns:
        The figures of `flows.training.engine.train`, which also names what it raises.
    """
    tokenizer = load_tokenizer(inputs["model"])

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    most = config.max_length - SPECIAL_TOKENS
    documents = read_documents(inputs["dataset"])
    examples = [{"text": piece} for document in documents for piece in cut_text(document.text, most, count)]
    return train(config, inputs["model"], examples, workdir, progress)
