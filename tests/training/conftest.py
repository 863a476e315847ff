from pathlib import Path

import pytest

from flows.corpus.row import Document, Row, write_jsonl
from flows.progress import silent
from flows.training import finetune, pretrain
from flows.training.config import FinetuneConfig, PretrainConfig

SMALL = {
    "epochs": 2,
    "batch_size": 2,
    "accumulation": 1,
    "max_length": 128,
    "learning_rate": 0.01,
    "lora": {"r": 4, "alpha": 8},
}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """24 rows and 12 texts about numbered parts."""
    folder = tmp_path_factory.mktemp("dataset")
    rows = [
        Row(
            id=f"r{n}",
            source="s",
            group=f"g{n}",
            context="",
            question=f"What is part {n}?",
            answer=f"Part {n}." * (1 + n % 3),
        )
        for n in range(24)
    ]
    write_jsonl(folder / "rows.jsonl", rows)
    texts = [
        Document(id=f"d{n}", source="s", group=f"g{n}", text=f"Part {n} holds part {n + 1}. " * 4) for n in range(12)
    ]
    write_jsonl(folder / "documents.jsonl", texts)
    return folder


@pytest.fixture
def train(tmp_path, dataset, tiny_models):
    """Run finetune on the small data set with a tiny model; returns (figures, working folder)."""

    def _train(workdir="work", family="llama-3", progress=silent, stage="finetune", model=None, **settings):
        inputs = {"dataset": dataset, "model": Path(model or tiny_models[family])}
        folder = tmp_path / workdir
        values = {**SMALL, **settings}
        if stage == "pretrain":
            return pretrain.run(PretrainConfig.model_validate(values), inputs, folder, progress), folder
        return finetune.run(FinetuneConfig.model_validate(values), inputs, folder, progress), folder

    return _train
