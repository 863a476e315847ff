"""Cache keys: a digest of everything that can change a stage's output, and words for what changed since last time."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from typing import Any

from pydantic import BaseModel

from flows.stages.registry import PACKAGE, Stage
from flows.store.digest import code_digest, value_digest

MOST = 60  # characters of a value
MOST_FILES = 5
_NONE = object()


def dependencies(stage: Stage, config: BaseModel, inputs: dict[str, str]) -> dict[str, Any]:
    """What the stage's output depends on. `inputs` are names with digests of content, never paths or times."""
    return {
        "config": _important(config.model_dump(mode="json"), stage.unimportant),
        "inputs": inputs,
        "code": {part: code_digest(PACKAGE / part) for part in stage.code},
        "libraries": {name: _version(name) for name in stage.libraries},
    }


def _version(library: str) -> str:
    """Without its local part: 2.13.0+cpu and 2.13.0+cu130 are builds of the same code."""
    return importlib.metadata.version(library).partition("+")[0]


def cache_key(stage: Stage, depends_on: dict[str, Any]) -> str:
    """The key: the stage's name and 40 hex characters."""
    return f"{stage.name}-{value_digest(depends_on)[:40]}"


def _important(value: Any, unimportant: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _important(part, unimportant) for key, part in value.items() if key not in unimportant}
    if isinstance(value, list):
        return [_important(part, unimportant) for part in value]
    return value


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In words, what a stage depends on now that it did not before: `learning_rate 0.0002 -> 0.0001`.

    Both are as `dependencies` gives them, with `labels` (name of an input -> what people call it) if there are any.
    """
    old, new = _flat(before.get("config", {})), _flat(now.get("config", {}))
    changes = [
        f"{name} {_word(old, name)} -> {_word(new, name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name, _NONE) != new.get(name, _NONE)
    ]
    changes += _inputs(_labelled(before), _labelled(now))
    changes += [f"code of {part} changed" for part in _unequal(before["code"], now["code"])]
    libraries = before["libraries"], now["libraries"]
    changes += [f"{name} {_word(libraries[0], name)} -> {_word(libraries[1], name)}" for name in _unequal(*libraries)]
    return changes


def distance(before: dict[str, Any], now: dict[str, Any]) -> int:
    """How many values and files differ: what `differences` puts into words, for comparing with thousands."""
    values = sum(_leaves(before.get(part, {}), now.get(part, {})) for part in ("config", "code", "libraries"))
    same = before["inputs"] == now["inputs"]
    return values if same else values + len(_unequal(_labelled(before), _labelled(now)))


def _leaves(old: Any, new: Any) -> int:
    if old == new:
        return 0
    if not (isinstance(old, dict) and isinstance(new, dict) and old and new):
        return 1
    return sum([_leaves(old.get(key, _NONE), new.get(key, _NONE)) for key in old.keys() | new.keys()])


def _unequal(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _labelled(depends_on: dict[str, Any]) -> dict[str, str]:
    labels = depends_on.get("labels", {})
    twice = [label for label, count in Counter(labels.values()).items() if count > 1]
    known = {name: label for name, label in labels.items() if label not in twice}
    return {known.get(name, name): digest for name, digest in depends_on["inputs"].items()}


def _inputs(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Files one by one, unless they are many; of other stages only that theirs is another result."""
    files = [name for name in _unequal(old, new) if "/" in name]
    words = [_file_change(name, old, new) for name in files[:MOST_FILES]]
    if len(files) > MOST_FILES:
        words.append(f"{len(files) - MOST_FILES} more files changed")
    return words + [_another(name) for name in _unequal(old, new) if "/" not in name]


def _file_change(name: str, old: dict[str, str], new: dict[str, str]) -> str:
    return f"file {name} {'is new' if name not in old else 'is gone' if name not in new else 'changed'}"


def _another(name: str) -> str:
    return "another trained model" if name == "trained" else f"another {name.replace('_', ' ')}"


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
