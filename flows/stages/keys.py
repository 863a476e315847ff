"""Cache keys: a digest of everything that can change a stage's output, and words for what changed since last time."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from pydantic import BaseModel

from flows.stages.registry import PACKAGE, Stage
from flows.store.digest import code_digest, value_digest

MOST = 60  # characters of a value


def dependencies(stage: Stage, config: BaseModel, inputs: dict[str, str]) -> dict[str, Any]:
    """What the stage's output depends on. `inputs` are names with digests of content, never paths or times."""
    return {
        "config": _important(config.model_dump(mode="json"), stage.unimportant),
        "inputs": inputs,
        "code": code_digest(*(PACKAGE / part for part in stage.code)),
        "libraries": {name: importlib.metadata.version(name) for name in stage.libraries},
    }


def cache_key(stage: Stage, depends_on: dict[str, Any]) -> str:
    """The key: the stage's name and 40 hex characters."""
    return f"{stage.name}-{value_digest(depends_on)[:40]}"


def _important(value: Any, unimportant: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _important(part, unimportant) for key, part in value.items() if key not in unimportant}
    if isinstance(value, list):
        return [_important(part, unimportant) for part in value]
    return value


def what_changed(before: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """In words, what a stage depends on now that it did not before: `learning_rate 0.0002 -> 0.0001`."""
    if before is None:
        return "first run"
    old, new = _flat(before), _flat(now)
    changes = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name):
            continue
        part, _, field = name.partition(".")
        if part == "code":
            changes.append("the stage's code changed")
        elif part == "inputs":
            changes.append(_another(field))
        else:
            changes.append(f"{field} {_word(old, name)} -> {_word(new, name)}")
    return "; ".join(dict.fromkeys(changes)) if changes else "nothing changed"


def _another(field: str) -> str:
    if field.startswith("sources."):
        return "the source files changed"
    return "another trained model" if field == "trained" else f"another {field.replace('_', ' ')}"


def _word(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return "(none)"
    value = values[name]
    words = f"{value:g}" if isinstance(value, float) else str(value) or "(empty)"
    return words if len(words) <= MOST else f"{words[: MOST - 1]}…"


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        parts = [_flat(part, f"{name}.{key}" if name else str(key)) for key, part in value.items()]
        return {key: part for flat in parts for key, part in flat.items()}
    return {name: value}
