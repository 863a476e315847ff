"""One fact of the field, as a source tells it: its texts and all questions about it, before any split."""

from __future__ import annotations

import re
import unicodedata

from pydantic import Field

from flows.config import Config
from flows.corpus.row import Drop, Row


class Fact(Config):
    """What belongs together: nobody may be trained on one half of it and tested on the other by accident.

    `rows` are the questions to train on (or to ask a model that never saw the fact); `reworded` ask the same otherwise
    and never become training rows; `documents` are its plain texts; `file` and `line` say where it stands.
    """

    group: str
    source: str
    rows: list[Row]
    reworded: list[Row] = Field(default=[])
    documents: list[str] = Field(default=[])
    file: str = ""
    line: int | None = None


class Found(Config):
    """What a source gave: facts, and the records that became none."""

    facts: list[Fact]
    drops: list[Drop]


def normalised(text: str) -> str:
    """Unicode form, case, spaces and punctuation evened out: two texts that differ only so are the same text."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[^\w]+", " ", folded).split())


def term_key(term: str) -> str:
    """A term without its bracketed abbreviation or translation, evened out."""
    bare = re.sub(r"[(\[（［].*?[)\]）］]", " ", term, flags=re.DOTALL)
    return normalised(bare) or normalised(term)
