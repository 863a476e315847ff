"""Lecture transcripts: passages with question/answer pairs that an LLM drew from them.

A line: {"context": "So what ...", "json_output": "{\\"qa_pairs\\": [{\\"question\\": ..., \\"answer\\": ...}]}"}
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from flows.config import Config
from flows.corpus.fact import Fact, Found, normalised
from flows.corpus.question_templates import QuestionTemplates
from flows.corpus.row import Drop, Row
from flows.corpus.sources.files import read_json_lines, source_files


class TranscriptSource(Config):
    """Lecture passages with question/answer pairs, as JSON lines."""

    path: str = Field(
        title="Folder or file",
        description="JSON lines of {context, json_output with qa_pairs}; or sample:trade_en/transcripts.",
        min_length=1,
    )
    limit: int = Field(
        default=0, ge=0, title="Limit (passages)", description="Use only the first passages; 0 is all of them."
    )


def files(source: TranscriptSource, field: str) -> list[Path]:
    """The files to read."""
    return source_files(source.path, (".jsonl", ".ndjson"), field)


def read(source: TranscriptSource, templates: QuestionTemplates, field: str) -> Found:
    """Each passage becomes a fact with a row a pair. There are no reworded rows: those need an LLM.

    Raises:
        DataError: a file is not UTF-8.
    """
    facts: list[Fact] = []
    drops: list[Drop] = []
    for file in files(source, field):
        for line, record in read_json_lines(file, drops):
            here: list[Drop] = []
            fact = _fact(record, templates, here)
            drops += [drop.model_copy(update={"file": str(file), "line": line}) for drop in here]
            if fact is not None:
                facts.append(fact.model_copy(update={"file": str(file), "line": line}))
    return Found(facts=facts[: source.limit or None], drops=drops)


def _fact(record: dict[str, Any], templates: QuestionTemplates, drops: list[Drop]) -> Fact | None:
    context = as_lines(record.get("context"))
    if not context:
        drops.append(Drop(file="", reason="no-context", detail=f"has the fields {', '.join(sorted(record))}"))
        return None
    # A passage may be given twice with other pairs: its text is its key, so both land on one rung.
    group = f"passage:{hashlib.blake2b(normalised(context).encode(), digest_size=8).hexdigest()}"
    rows = [
        Row(
            id=f"{group}#{hashlib.blake2b(normalised(question).encode(), digest_size=6).hexdigest()}",
            source="transcripts",
            group=group,
            context=context,
            question=question,
            answer=answer,
            instruction=templates.instruction,
        )
        for question, answer in _pairs(record.get("json_output"), drops)
    ]
    return Fact(group=group, source="transcripts", rows=rows, documents=[context]) if rows else None


def _pairs(reply: Any, drops: list[Drop]) -> Iterator[tuple[str, str]]:
    if isinstance(reply, str):
        try:
            reply = json.loads(reply)
        except (ValueError, RecursionError) as error:
            drops.append(Drop(file="", reason="json-output-not-json", detail=f"json_output: {error}"))
            return
    pairs = reply.get("qa_pairs") if isinstance(reply, dict) else None
    if not isinstance(pairs, list):
        has = ", ".join(sorted(reply)) if isinstance(reply, dict) else type(reply).__name__
        drops.append(Drop(file="", reason="no-qa-pairs", detail=f"json_output: no list qa_pairs in it, but {has}"))
        return
    for number, pair in enumerate(pairs, start=1):
        question = as_text(pair.get("question")) if isinstance(pair, dict) else ""
        answer = as_text(pair.get("answer")) if isinstance(pair, dict) else ""
        if question and answer:
            yield question, answer
        else:
            reason = "no-answer" if question else "no-question"
            drops.append(Drop(file="", reason=reason, detail=f"pair {number}: {str(pair)[:80]}"))


def as_lines(value: Any) -> str:
    """A text with its line breaks; "" for anything else."""
    return value.encode("utf-8", "ignore").decode("utf-8").strip() if isinstance(value, str) else ""


def as_text(value: Any) -> str:
    """Text of a value that an LLM may have given as text, a number, or a list of such; "" for anything else."""
    if isinstance(value, str):
        # Half a surrogate pair, as a cut-off reply leaves it, cannot be written as UTF-8.
        return " ".join(value.encode("utf-8", "ignore").decode("utf-8").split())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value) if math.isfinite(value) else ""
    if isinstance(value, list) and all(as_text(item) for item in value):
        return ", ".join(as_text(item) for item in value)
    return ""
