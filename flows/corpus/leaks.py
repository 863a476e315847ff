"""Taking out of training what would tell the answers of held-out facts: near-duplicates and verbatim answers.

Near-duplicates are found by MinHash over character 5-grams (word n-grams see nothing in short answers), as in
datasketch's LSH; a hit is counted and removed from *training*, never from the test.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flows.config import Config
from flows.corpus.fact import normalised
from flows.corpus.row import Document, Row

if TYPE_CHECKING:
    from datasketch import MinHash

SIMILARITY = 0.8  # Jaccard of the 5-gram sets
SHINGLE = 5
# Shorter answers (a term's name, a number) are part of the language of the field; finding one in a text leaks nothing.
VERBATIM_CHARACTERS = 30


class Cleaned(Config):
    """What may be trained on, and how many rows and documents were taken out."""

    rows: list[Row]
    documents: list[Document]
    removed: int


def remove_leaks(rows: list[Row], documents: list[Document]) -> Cleaned:
    """Drop training rows that tell of a studied or unseen fact, and documents that tell of an unseen one."""
    asked = [row for row in rows if row.rung in ("studied", "unseen")]
    unseen = [row for row in asked if row.rung == "unseen"]
    about_asked, about_unseen = _Index(asked), _Index(unseen)
    kept_rows = [row for row in rows if row.rung != "trained" or not about_asked.tells(_texts(row))]
    # A reworded question about a fact that is no longer trained would not be a reworded one.
    trained = {row.group for row in kept_rows if row.rung == "trained"}
    kept_rows = [row for row in kept_rows if row.rung != "reworded" or row.group in trained]
    kept_documents = [document for document in documents if not about_unseen.tells([document.text])]
    removed = len(rows) - len(kept_rows) + len(documents) - len(kept_documents)
    return Cleaned(rows=kept_rows, documents=kept_documents, removed=removed)


def _texts(row: Row) -> list[str]:
    # The questions about terms are our templates: that two of them are alike tells nothing of the facts.
    own = [] if row.source == "terms" else [row.question, f"{row.question} {row.answer}"]
    return [row.answer, *own]


def _sketch(text: str) -> MinHash:
    from datasketch import MinHash  # here: it takes 0.4 s, and most processes clean nothing

    sketch = MinHash(num_perm=128, seed=1)
    sketch.update_batch([text[at : at + SHINGLE].encode() for at in range(max(1, len(text) - SHINGLE + 1))])
    return sketch


class _Index:
    """Finds whether a text says what some held-out row says."""

    def __init__(self, rows: Iterable[Row]) -> None:
        from datasketch import MinHashLSH

        self._lsh = MinHashLSH(threshold=SIMILARITY, num_perm=128)
        self._sketches: dict[str, MinHash] = {}
        self._answers: set[str] = set()
        texts = {normalised(text) for row in rows for text in [*_texts(row), row.context] if text}
        for text in sorted(texts):
            if len(text) >= VERBATIM_CHARACTERS:
                self._sketches[text] = _sketch(text)
                self._lsh.insert(text, self._sketches[text])
        self._answers = {answer for row in rows if len(answer := normalised(row.answer)) >= VERBATIM_CHARACTERS}

    def tells(self, texts: Iterable[str]) -> bool:
        return any(self._tells(normalised(text)) for text in texts)

    def _tells(self, text: str) -> bool:
        if len(text) < VERBATIM_CHARACTERS:
            return False
        if any(answer in text for answer in self._answers):
            return True
        sketch = _sketch(text)
        return any(sketch.jaccard(self._sketches[hit]) >= SIMILARITY for hit in self._lsh.query(sketch))
