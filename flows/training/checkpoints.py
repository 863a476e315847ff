"""Which checkpoint to go on from: the newest one that was written whole."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

MARK = "whole.json"


def mark_whole(checkpoint: Path) -> None:
    """Say that everything in this checkpoint has been written; names the files and their sizes in bytes.

    All of it is on the disk before the mark is: after a power loss a file can have its size and none of its content.
    """
    files = [file for file in checkpoint.iterdir() if file.is_file()]
    sizes = {file.name: file.stat().st_size for file in files}
    beside = checkpoint / f".{MARK}"
    beside.write_text(json.dumps(sizes))
    for path in (*files, beside, checkpoint):
        _to_disk(path)
    beside.rename(checkpoint / MARK)
    _to_disk(checkpoint)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_whole(checkpoint: Path) -> bool:
    """Whether the mark is there and every file still has the size it names."""
    try:
        sizes = json.loads((checkpoint / MARK).read_text())
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def newest_whole(folder: Path) -> Path | None:
    """The checkpoint with the highest step that is whole; torn ones are removed. None: start from the beginning."""
    found: dict[int, Path] = {}
    for checkpoint in folder.glob("checkpoint-*"):
        step = checkpoint.name.removeprefix("checkpoint-")
        if step.isdigit() and is_whole(checkpoint):
            found[int(step)] = checkpoint
        else:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return found[max(found)] if found else None
