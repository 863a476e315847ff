"""Whether an artifact still has the bytes that its manifest names: read once, then known by times and sizes."""

from __future__ import annotations

import contextlib
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

from flows.store.digest import file_digest
from flows.store.files import read_json, write_json

MOST_NAMED = 3
MOST_BOOTS = 8
BOOT = Path("/proc/sys/kernel/random/boot_id")


def damage(folder: Path, found: dict[str, Any] | None, digest: str, memo: Path) -> str:
    """What is wrong with an artifact, in words; empty if nothing is.

    Args:
        folder: the artifact.
        found: its manifest, None if there is none.
        digest: the digest of the artifact that is wanted.
        memo: a file that keeps what was read and found right. A file of the artifact is read again when its time or
            size is another one than then, or the machine was started anew since: what was written last may be lost
            with the power, and time and size not.
    """
    if found is None:
        return "it has no manifest"
    if found.get("digest") != digest:
        return "its manifest is of another artifact"
    if not isinstance(found.get("files"), dict):
        return "its manifest names no files"
    known = _known(memo).get(_boot(), {})
    wrong, seen = [], {}
    for name, facts in found["files"].items():
        try:
            state = _state(folder / name)
            right = state[0] == facts["bytes"]
            if right and known.get(name) != state:
                right = file_digest(folder / name) == facts["sha256"]
        except OSError:
            wrong.append(f"{name} is missing")
            continue
        if right:
            seen[name] = state
        else:
            wrong.append(f"{name} is not what was written")
    if wrong:
        more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        return ", ".join(wrong[:MOST_NAMED]) + more
    if seen != known:
        _keep(memo, seen)
    return ""


def remember(folder: Path, names: list[str], memo: Path) -> None:
    """Keep that these files have just been read, or written, as the manifest says."""
    _keep(memo, {name: _state(folder / name) for name in names})


def _keep(memo: Path, seen: dict[str, list[int]]) -> None:
    """For this machine, beside what others know that share the store."""
    others = {boot: known for boot, known in _known(memo).items() if boot != _boot()}
    with contextlib.suppress(OSError):  # a store that one may only read is read anew each time
        write_json(memo, dict(list(others.items())[1 - MOST_BOOTS :]) | {_boot(): seen})


def _known(memo: Path) -> dict[str, Any]:
    """What it keeps, by start of a machine; nothing if it holds something else."""
    found = read_json(memo)
    return {boot: seen for boot, seen in found.items() if isinstance(seen, dict)} if isinstance(found, dict) else {}


@cache
def _boot() -> str:
    return BOOT.read_text().strip() if BOOT.exists() else platform.node()


def _state(file: Path) -> list[int]:
    """Size in bytes, and when content and entry were last changed, in ns."""
    found = os.stat(file)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
