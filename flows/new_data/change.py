"""What has changed since the last look: waited for until nobody writes any more, told by content and not by time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel

from flows.new_data.files import Files, look, with_digests
from flows.store.digest import value_digest
from flows.store.files import read_json, write_json

MOST_NAMED = 20  # files of a kind in a message


class Watched(BaseModel):
    """The last state of data for which a run was started; `number` counts those states."""

    deployment: str
    places: list[str]
    number: int = 0
    digest: str = ""
    files: Files = {}
    run_id: str = ""
    run_name: str = ""
    time: str = ""


class Change(BaseModel):
    """Data that is otherwise than in the last state, by names of files."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    files: Files
    digest: str

    @property
    def words(self) -> str:
        """In one line: `2 files added (a.json, b.json), 1 changed (c.json)`."""
        parts = []
        for what, names in (("added", self.added), ("changed", self.changed), ("removed", self.removed)):
            if names:
                shown = ", ".join(Path(name).name for name in names[:MOST_NAMED])
                more = ", …" if len(names) > MOST_NAMED else ""
                parts.append(f"{len(names)} {what} ({shown}{more})")
        return ", ".join(parts)


def watch_name(deployment: str, places: Sequence[str]) -> str:
    """What a watch is called in files, events and keys: the same for the same deployment and places."""
    return value_digest([deployment, sorted(places)])[:16]


def load(file: Path, deployment: str, places: Sequence[str]) -> Watched:
    """The last state, an empty one before the first look."""
    found = read_json(file)
    return Watched.model_validate(found) if found else Watched(deployment=deployment, places=list(places))


def save(file: Path, watched: Watched) -> None:
    """Keep it for the next look."""
    write_json(file, watched.model_dump(mode="json"))


def same_at_a_glance(files: Files, watched: Watched) -> bool:
    """Whether no size and no mark is otherwise, so that nothing need be read."""
    return _marks(files) == _marks(watched.files)


def settled(
    places: Sequence[str],
    first: Files,
    settle_s: float,
    longest_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Files, list[str]]:
    """Look again every `settle_s` seconds until nothing changes between two looks, `longest_s` seconds at most.

    Returns:
        The files, and the names of those that were still changing; none if all is settled.

    Raises:
        ConfigError, DataError: as `look`.
    """
    before, waited = _marks(first), 0.0
    while True:
        sleep(settle_s)
        waited += settle_s
        files = look(places)
        now = _marks(files)
        if now == before:
            return files, []
        moving = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
        if waited >= longest_s:
            return files, moving
        before = now


def compare(files: Files, watched: Watched) -> Change:
    """What is otherwise, by content.

    Raises:
        DataError: a file cannot be read.
    """
    now = with_digests(files, watched.files)
    before = watched.files
    both = now.keys() & before.keys()
    content = sorted((name, seen.size, seen.digest) for name, seen in now.items())
    return Change(
        added=sorted(now.keys() - before.keys()),
        changed=sorted(name for name in both if now[name].digest != before[name].digest),
        removed=sorted(before.keys() - now.keys()),
        files=now,
        digest=value_digest(content),
    )


def _marks(files: Files) -> dict[str, tuple[int, str]]:
    return {name: (seen.size, seen.mark) for name, seen in files.items()}
