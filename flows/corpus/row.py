"""The one row shape that every source becomes and every later stage reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from flows.config import Config

Split = Literal["train", "dev", "test"]
Rung = Literal["trained", "reworded", "studied", "unseen"]
HELD_OUT_RUNGS: tuple[Rung, ...] = ("reworded", "studied", "unseen")


class Row(Config):
    """One question with its answer.

    `group` is the fact the row asks about (a term, an exam stem, a passage): rows of one group never straddle the
    ladder by accident. `rung` is `trained` exactly for rows of the train split. `instruction` stands before the
    question in the prompt. `reworded_by` says how a `reworded` row differs from what was trained.
    """

    id: str
    source: str
    group: str
    context: str
    question: str
    answer: str
    instruction: str = ""
    split: Split = "train"
    rung: Rung = "trained"
    reworded_by: Literal["", "template", "shuffled-options", "alternative-question", "instruction"] = ""

    @property
    def user_message(self) -> str:
        """What the user says to the model: the instruction, then the question."""
        return f"{self.instruction}\n{self.question}" if self.instruction else self.question


class Document(Config):
    """One plain text for continual pre-training (DAPT), with the group whose fact it tells."""

    id: str
    source: str
    group: str
    text: str


class Drop(Config):
    """One input record that became no row, and why."""

    file: str
    line: int | None = None
    reason: str
    detail: str = ""


def write_jsonl(path: Path, items: Iterable[Config]) -> None:
    """Write one JSON object a line, UTF-8."""
    with path.open("w", encoding="utf-8") as stream:
        for item in items:
            stream.write(json.dumps(item.model_dump(), ensure_ascii=False) + "\n")


def read_rows(dataset: Path, split: Split | None = None) -> list[Row]:
    """Rows of a prepared dataset folder (`rows.jsonl`), of one split or of all."""
    return [row for row in _read(dataset / "rows.jsonl") if split is None or row.split == split]


def _read(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield Row.model_validate_json(line)


def read_documents(dataset: Path) -> list[Document]:
    """DAPT texts of a prepared dataset folder (`documents.jsonl`)."""
    with (dataset / "documents.jsonl").open(encoding="utf-8") as stream:
        return [Document.model_validate_json(line) for line in stream]
