"""Former results of a stage: what they depended on, and which of them is nearest to what is asked for now."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from flows.stages.call import StageCall
from flows.stages.keys import differences, distance
from flows.store.files import read_json, write_json
from flows.store.layout import DEPENDS, DONE, Store


@dataclass(frozen=True)
class Former:
    """A former result: its key, who made it, and in words what is otherwise now."""

    key: str
    maker: dict[str, str]
    changes: list[str]


def remember(store: Store, call: StageCall) -> None:
    """Write what the call's result depends on beside it."""
    write_json(store.work(call.key) / DEPENDS, remembered(call))


def remembered(call: StageCall) -> dict[str, Any]:
    """What the call's result depends on, and what people call its inputs."""
    return call.depends_on | {"labels": call.labels}


def nearest(store: Store, call: StageCall) -> Former | None:
    """The former result of this stage with the fewest differences, of equals the newest; None if there is none.

    Only what is in the store counts, whoever made it. One with the same key has no difference.
    """
    store.fetch_formers(call.stage.name)
    now = remembered(call)
    found = []
    for key in _keys(store, call.stage.name):
        file = f"{store.works}/{key}/{DEPENDS}"
        try:
            with open(file, "rb") as stream:
                before, written = json.loads(stream.read()), os.fstat(stream.fileno()).st_mtime_ns
        except (OSError, ValueError):
            continue
        found.append((distance(before, now), -written, key, before))
    found.sort(key=lambda one: one[:2])
    for _, _, key, before in found:
        done = read_json(store.work(key) / DONE)
        if isinstance(done, dict) and isinstance(done.get("maker"), dict):
            return Former(key, done["maker"], differences(before, now))
    return None


def _keys(store: Store, stage: str) -> list[str]:
    work = store.works
    return [name for name in os.listdir(work) if name.startswith(f"{stage}-")] if work.is_dir() else []
