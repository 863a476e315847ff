"""Held-out rows as a ladder of what was learnt: reworded, studied, unseen.

A random split of rows puts the twin of most test questions into training. Here a *fact* has one rung, by a hash of its
key: the same for ever, and stable when others are added.

- `reworded`: trained, and asked in words kept for the test;
- `studied`: its text is read in pre-training, no question about it is trained;
- `unseen`: nowhere in training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from flows.config import Config
from flows.corpus.fact import Fact
from flows.corpus.row import Document, Row, Rung


class SplitConfig(Config):
    """How rows are held out."""

    protocol: Literal["ladder", "rows"] = Field(
        default="ladder",
        title="Protocol",
        description="ladder: whole facts are held out, in three rungs. rows: a random tenth of the rows as in the "
        "article, twins included; the report says how many of them leak.",
    )
    studied: float = Field(
        default=0.1, ge=0, le=0.5, title="Studied share", description="Of the facts, 0 to 0.5: read, never asked."
    )
    unseen: float = Field(
        default=0.1, ge=0, le=0.5, title="Unseen share", description="Of the facts, 0 to 0.5: kept out of training."
    )
    reworded: float = Field(
        default=0.1,
        ge=0,
        le=1,
        title="Reworded share",
        description="Of the trained facts, 0 to 1: each gets one held-out question in other words.",
    )
    dev: float = Field(
        default=0.25,
        ge=0,
        le=0.9,
        title="Development share",
        description="Of the held-out facts, 0 to 0.9: recipes are tuned on these, the test is made of the others.",
    )
    rows_test: float = Field(
        default=0.1, gt=0, le=0.5, title="Test share (rows)", description="Of all rows; only for the protocol rows."
    )


class Ladder(Config):
    """The split: rows with their rung, and the texts for pre-training."""

    rows: list[Row]
    documents: list[Document]
    not_reworded: int
    leaking_test_rows: int


def share(key: str, purpose: str) -> float:
    """A number in [0, 1) that depends on the two texts alone, evenly spread."""
    digest = hashlib.blake2b(f"{purpose}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def rung_of(group: str, split: SplitConfig) -> Rung:
    """The rung of a fact; a `trained` one may get a reworded question besides."""
    place = share(group, "rung")
    if place < split.unseen:
        return "unseen"
    return "studied" if place < split.unseen + split.studied else "trained"


def split_ladder(facts: Iterable[Fact], split: SplitConfig) -> Ladder:
    """Put every fact on its rung. Facts of one group must have been joined."""
    rows: list[Row] = []
    documents: list[Document] = []
    not_reworded = 0
    for fact in facts:
        rung = rung_of(fact.group, split)
        held_out: Literal["dev", "test"] = "dev" if share(fact.group, "dev") < split.dev else "test"
        if rung == "trained":
            rows += fact.rows
            if share(fact.group, "reworded") < split.reworded:
                if fact.reworded:
                    one = fact.reworded[int(share(fact.group, "wording") * len(fact.reworded))]
                    rows.append(one.model_copy(update={"split": held_out, "rung": "reworded"}))
                else:
                    not_reworded += 1
        else:
            rows += [row.model_copy(update={"split": held_out, "rung": rung}) for row in fact.rows]
        if rung != "unseen":
            documents += _documents(fact)
    return Ladder(rows=rows, documents=documents, not_reworded=not_reworded, leaking_test_rows=0)


def split_rows(facts: Iterable[Fact], split: SplitConfig) -> Ladder:
    """The article's protocol: rows at random, and all texts for pre-training.

    A test row whose fact is also trained leaks and stands on `reworded`; the others stand on `studied`: their text is
    read.
    """
    together = list(facts)
    rows = [row for fact in together for row in fact.rows]
    tested = {row.id for row in rows if share(row.id, "rows") < split.rows_test}
    trained_groups = {row.group for row in rows if row.id not in tested}
    placed = [
        row.model_copy(update={"split": "test", "rung": "reworded" if row.group in trained_groups else "studied"})
        if row.id in tested
        else row
        for row in rows
    ]
    leaking = sum(row.split == "test" and row.group in trained_groups for row in placed)
    documents = [document for fact in together for document in _documents(fact)]
    return Ladder(rows=placed, documents=documents, not_reworded=0, leaking_test_rows=leaking)


def _documents(fact: Fact) -> list[Document]:
    return [
        Document(id=f"{fact.group}#text-{number}", source=fact.source, group=fact.group, text=text)
        for number, text in enumerate(fact.documents)
    ]
