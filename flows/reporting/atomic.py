"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write a file beside its place and rename it there, so that a reader sees the old or the new one, never half.

    Text is written as UTF-8. Nothing is left behind when the write fails.

    Returns:
        The path, for chaining.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path
