import json

import pytest

from flows.corpus.prepare import PrepareConfig, run
from flows.progress import silent


@pytest.fixture
def prepare(tmp_path):
    """Run prepare on sources given as a dict; returns (card, output folder)."""

    def _prepare(split=None, **sources):
        config = PrepareConfig.model_validate({"sources": sources, "split": split or {}})
        workdir = tmp_path / "work"
        return run(config, {}, workdir, silent), workdir / "output"

    return _prepare


@pytest.fixture
def table(tmp_path):
    """Write a CSV of enough good rows, and lines of one's own after them."""

    def _table(*more, rows=30, name="qa.csv"):
        lines = ["question,answer", *(f"What is part {n}?,Part number {n} of the machine." for n in range(rows)), *more]
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return {"path": str(path)}

    return _table


@pytest.fixture
def write(tmp_path):
    def _write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), "utf-8")
        return str(path)

    return _write
