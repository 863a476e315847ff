"""Question/answer tables of any field: CSV, TSV, JSON lines or Parquet, with a column mapping.

A file: question,answer
        What is a tare weight?,The weight of the empty container.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from pydantic import Field

from flows.config import Config
from flows.corpus.fact import Fact, Found, normalised
from flows.corpus.question_templates import QuestionTemplates
from flows.corpus.row import Drop, Row
from flows.corpus.sources.files import source_files
from flows.corpus.sources.records import SUFFIXES, records
from flows.corpus.sources.transcripts import as_text
from flows.errors import DataError
from flows.placeholders import fill


class TableSource(Config):
    """Question/answer pairs in columns."""

    path: str = Field(
        title="Folder or file", description="CSV, TSV, JSON lines or Parquet with a header.", min_length=1
    )
    question: str = Field(default="question", title="Question column", description="Its name in the table.")
    answer: str = Field(default="answer", title="Answer column", description="Its name in the table.")
    context: str = Field(
        default="",
        title="Context column",
        description="A text that tells the fact, used for pre-training; may be empty.",
    )
    group: str = Field(
        default="",
        title="Group column",
        description="Rows with the same value are about the same fact and stay on one side of the split; "
        "empty: each question is its own.",
    )
    alternative: str = Field(
        default="",
        title="Alternative question column",
        description="The same question in other words, kept for the test; empty: only the instruction is reworded.",
    )
    limit: int = Field(default=0, ge=0, title="Limit (rows)", description="Use only the first rows; 0 is all of them.")


def files(source: TableSource, field: str) -> list[Path]:
    """The files to read."""
    return source_files(source.path, SUFFIXES, field)


def read(source: TableSource, templates: QuestionTemplates, field: str) -> Found:
    """Each row becomes a fact; those of one group are joined later.

    Raises:
        DataError: a column is not there, a file is not UTF-8, no table, or of an unknown kind.
    """
    facts: list[Fact] = []
    drops: list[Drop] = []
    for file in files(source, field):
        columns = functools.partial(_require_columns, source, file, field)
        for line, record in records(file, columns, drops, field):
            if source.limit and len(facts) >= source.limit:
                break
            fact = _fact(record, source, templates)
            if isinstance(fact, Fact):
                fact = fact.model_copy(update={"file": str(file), "line": line})
                facts.append(fact)
            else:
                drops.append(Drop(file=str(file), line=line, reason=fact, detail=str(record)[:80]))
    return Found(facts=facts, drops=drops)


def _require_columns(source: TableSource, file: Path, field: str, present: list[str], line: int | None) -> list[str]:
    named = (source.question, source.answer, source.context, source.group, source.alternative)
    columns = list(dict.fromkeys(name for name in named if name))
    missing = [name for name in columns if name not in present]
    if missing:
        at = f"{file}, line {line}" if line else str(file)
        raise DataError(
            f"{at}: no column {' and no column '.join(repr(name) for name in missing)}. There are: "
            f"{', '.join(present) or 'none'}. Set the column names of {field} to those of the table."
        )
    return columns


def _fact(record: dict[str, Any], source: TableSource, templates: QuestionTemplates) -> Fact | str:
    """The fact of one table row, or the reason why there is none."""
    question, answer = as_text(record.get(source.question)), as_text(record.get(source.answer))
    if not question or not answer:
        return "no-question" if not question else "no-answer"
    key = as_text(record.get(source.group)) if source.group else ""
    group = f"table:{normalised(key or question)}"
    context = as_text(record.get(source.context)) if source.context else ""
    document = context or fill(templates.table.document, question=question, answer=answer)
    name = f"{group}#{hashlib.blake2b(normalised(question).encode(), digest_size=6).hexdigest()}"
    base = {"source": "table", "group": group, "context": context, "answer": answer}
    alternative = as_text(record.get(source.alternative)) if source.alternative else ""
    if alternative and normalised(alternative) != normalised(question):
        other = Row(
            id=f"{name}#alternative",
            question=alternative,
            instruction=templates.instruction,
            reworded_by="alternative-question",
            **base,
        )
    else:
        other = Row(
            id=f"{name}#instruction",
            question=question,
            instruction=templates.instruction_reworded,
            reworded_by="instruction",
            **base,
        )
    row = Row(id=name, question=question, instruction=templates.instruction, **base)
    return Fact(group=group, source="table", rows=[row], reworded=[other], documents=[document])
