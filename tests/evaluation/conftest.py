import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from flows.corpus.row import Row


@pytest.fixture
def row():
    """Make a held-out row; its group is its own id unless given."""

    def _row(number, question="What is it?", answer="A part.", rung="reworded", **values):
        values = {"group": f"g{number}", "split": "test"} | values
        return Row(id=f"r{number}", source="s", context="", question=question, answer=answer, rung=rung, **values)

    return _row


@pytest.fixture
def rows(row):
    """Ten rows whose prompts have very different lengths."""
    return [
        row(n, question=f"What is part {n}? " + "Tell me of the bill of lading. " * (7 * n % 10), answer=f"Part {n}.")
        for n in range(10)
    ]


@pytest.fixture(scope="session")
def talkers(tiny_models, tmp_path_factory):
    """The tiny models with wilder weights and a head of their own: their replies hang on every word of the question."""
    folder = tmp_path_factory.mktemp("talkers")
    return {family: _wilder(path, folder / family) for family, path in tiny_models.items()}


def _wilder(path, folder):
    shutil.copytree(path, folder)
    model = AutoModelForCausalLM.from_pretrained(path, tie_word_embeddings=False)
    noise = torch.Generator().manual_seed(20)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.normal_(0, 1 if "embed" in name else 0.3, generator=noise)
    model.save_pretrained(folder)
    return folder
