"""Writing a file so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def own_word() -> str:
    """A word for the name of a file that is ours alone: process, thread and chance.

    The process id alone would not do: threads share it, and so do containers that share a folder.
    """
    return f"{os.getpid()}-{threading.get_native_id()}-{secrets.token_hex(4)}"


def name_beside(path: Path) -> Path:
    """A hidden name of our own beside `path` for what is not whole yet; `.<name>.*` finds all that were left behind."""
    return path.with_name(f".{path.name}.{own_word()}")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of `path` in the end, if all went well; nothing is left of it otherwise."""
    written = name_beside(path)
    try:
        yield written
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write a file beside its place and rename it there; text as UTF-8. Nothing is left behind when the write fails.

    Returns:
        The path, for chaining.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as written:
        written.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_json(path: Path, value: Any) -> None:
    """`write_atomically` of indented JSON."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False))


def read_json(path: Path) -> Any:
    """The JSON value of a file; None if it is not there or torn."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
