"""Glossaries: JSON files of terms with their descriptions, in a list or in lists of lists.

A file: [{"term": "Sea waybill (SWB)", "description": "A ..."}] or
        [[{"kor_term": "신용장", "eng_term": "Letter of Credit", "description": "..."}]]
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from flows.config import Config
from flows.corpus.fact import Fact, Found, term_key
from flows.corpus.question_templates import QuestionTemplates
from flows.corpus.row import Drop, Row
from flows.corpus.sources.files import read_json, source_files
from flows.errors import DataError
from flows.placeholders import fill


class TermSource(Config):
    """A glossary as JSON files."""

    path: str = Field(
        title="Folder or file",
        description="JSON files with lists of {term, description} or {kor_term, eng_term, description}; "
        "or sample:trade_en/terms.",
        min_length=1,
    )
    limit: int = Field(
        default=0, ge=0, title="Limit (terms)", description="Use only the first terms; 0 is all of them."
    )


def files(source: TermSource, field: str) -> list[Path]:
    """The files to read."""
    return source_files(source.path, (".json",), field)


def read(source: TermSource, templates: QuestionTemplates, field: str) -> Found:
    """Each term becomes a fact with rows both ways: term to description, description to term.

    Raises:
        DataError: a file is not UTF-8 JSON or holds no list.
    """
    facts: list[Fact] = []
    drops: list[Drop] = []
    for file in files(source, field):
        value = read_json(file)
        if not isinstance(value, list):
            raise DataError(f"{file}: a glossary file is a JSON list of terms, this one is a {type(value).__name__}.")
        for place, entry in _entries(value):
            fact = _fact(entry, templates)
            if isinstance(fact, Fact):
                facts.append(fact.model_copy(update={"file": str(file)}))
            else:
                reason, detail = fact
                drops.append(Drop(file=str(file), reason=reason, detail=f"entry {place}: {detail}"))
    return Found(facts=facts[: source.limit or None], drops=drops)


def _entries(value: list[Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for number, entry in enumerate(value, start=1):
        here = f"{place}{number}"
        if isinstance(entry, list):
            yield from _entries(entry, f"{here}.")
        else:
            yield here, entry


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    return " ".join(value.split()) if isinstance(value, str) else ""


def _fact(entry: Any, templates: QuestionTemplates) -> Fact | tuple[str, str]:
    """The fact, or (reason, detail) why there is none."""
    if not isinstance(entry, dict):
        return "not-an-object", str(entry)[:80]
    term = _text(entry, "term") or _text(entry, "kor_term")
    description = _text(entry, "description")
    if not term:
        return "no-term", f"has the fields {', '.join(sorted(entry)) or 'none'}"
    if not description:
        return "no-description", term
    english = _text(entry, "eng_term")
    name = fill(templates.terms.with_english, term=term, english=english) if english else term
    group = f"term:{term_key(term)}"
    document = fill(templates.terms.document, term=name, description=description)
    return Fact(
        group=group,
        source="terms",
        rows=_rows(group, name, description, document, templates, "trained"),
        reworded=_rows(group, name, description, document, templates, "reworded"),
        documents=[document],
    )


def _rows(
    group: str,
    name: str,
    description: str,
    document: str,
    templates: QuestionTemplates,
    use: Literal["trained", "reworded"],
) -> list[Row]:
    values = {"term": name, "description": description, "domain": templates.domain}
    asked = [
        (direction, template, answer)
        for direction, wordings, answer in (
            ("definition", templates.terms.definition, description),
            ("name", templates.terms.name, name),
        )
        for template in (wordings.trained if use == "trained" else wordings.reworded)
    ]
    return [
        Row(
            id=f"{group}#{use}-{number}-{direction}",
            source="terms",
            group=group,
            context=document,
            question=fill(template, **values),
            answer=answer,
            instruction=templates.instruction,
            reworded_by="template" if use == "reworded" else "",
        )
        for number, (direction, template, answer) in enumerate(asked)
    ]
