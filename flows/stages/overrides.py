"""Settings as lines `field=value`, laid over a model's values: short where a whole form would be long."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


def lay_over(values: dict[str, Any], lines: Sequence[str], where: str, of: str, example: str) -> list[str]:
    """Change `values` (nested, by field) as the lines say, the later one last; the value of a line is YAML.

    Args:
        values: is changed.
        lines: each `path.of.field=value`.
        where: the field's path of the lines, for the problems.
        of: what the settings belong to, in words.
        example: a line that is right.

    Returns:
        What is wrong, a line each.
    """
    problems = []
    for number, line in enumerate(lines):
        path, equals, text = line.partition("=")
        *sections, field = path.strip().split(".")
        at = f"{where}[{number}]: {line!r}"
        section: Any = values
        for key in sections:
            section = section.get(key) if isinstance(section, dict) else None
        if not equals or not isinstance(section, dict) or field not in section:
            problems.append(f"{at} names no setting of {of}.{_hint(path, values, example)}")
            continue
        try:
            section[field] = yaml.safe_load(text)
        except yaml.YAMLError:
            problems.append(f"{at}: the value cannot be read.")
    return problems


def checked(model: type[M], values: dict[str, Any], where: str, before: str = "") -> tuple[M | None, list[str]]:
    """The model of these values, or what is wrong with them, a line each."""
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        return None, [
            f"{where}: {before}{'.'.join(map(str, one['loc']))}: {one['msg']} (given: {one['input']!r})."
            for one in error.errors()
        ]


def _hint(path: str, values: dict[str, Any], example: str) -> str:
    near = difflib.get_close_matches(path.strip(), list(_paths(values)), n=1)
    return f" Did you mean {near[0]}?" if near else f" Write it as {example}."


def _paths(values: dict[str, Any], before: str = "") -> Iterable[str]:
    for key, value in values.items():
        yield f"{before}{key}"
        if isinstance(value, dict):
            yield from _paths(value, f"{before}{key}.")
