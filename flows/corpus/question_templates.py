"""Question templates: `en` and `ko` are shipped, a YAML file of the user's overrides any part of one."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from flows.config import Config
from flows.errors import DataError

Language = Literal["en", "ko"]


class Wordings(Config):
    """Ways to ask one thing: `trained` ones make training rows, `reworded` ones are kept for the test."""

    trained: list[str]
    reworded: list[str]


class ExamTemplates(Config):
    """What marks a question and an answer in an exam's running text."""

    question_marker: str
    answer_marker: str


class TermTemplates(Config):
    """A term is asked both ways: its definition, and its name."""

    with_english: str
    document: str
    definition: Wordings
    name: Wordings


class TableTemplates(Config):
    """The text for pre-training of a table row without a context column."""

    document: str


class QuestionTemplates(Config):
    """All wordings of one language; see `questions/en.yaml`."""

    domain: str
    instruction: str
    instruction_reworded: str
    exam: ExamTemplates
    terms: TermTemplates
    table: TableTemplates


def check_override(path: str) -> None:
    """Find out now whether a file of templates can be read.

    Raises:
        DataError: it cannot.
    """
    if path:
        _read_override(Path(path).expanduser())


def load_templates(language: Language, domain: str = "", override: str = "") -> QuestionTemplates:
    """The shipped templates of a language, with the field's own word for itself and a file's parts laid over.

    Raises:
        DataError: the file is not YAML, or has a key that there is not; names file and key.
    """
    shipped = importlib.resources.files("flows.corpus") / "questions" / f"{language}.yaml"
    values: dict[str, Any] = yaml.safe_load(shipped.read_text("utf-8"))
    if override:
        values = _merge(values, _read_override(Path(override).expanduser()))
    if domain:
        values["domain"] = domain
    try:
        return QuestionTemplates.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{override}: {field}: {first['msg']}. See flows/corpus/questions/{language}.yaml.") from error


def _read_override(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: the question templates cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise DataError(
            f"{path}: the question templates must be a YAML mapping such as flows/corpus/questions/en.yaml."
        )
    return values


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
