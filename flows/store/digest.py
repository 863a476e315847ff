"""Digests of content: files, folders, JSON values and source code."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import tenacity


def value_digest(value: Any) -> str:
    """SHA-256 of a JSON-able value, independent of key order; 64 hex characters."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_utf8(name: str) -> bool:
    """Whether the name of a file, as Python tells it, can be written down; not every one that Linux takes can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def folder_checksums(folder: Path) -> dict[str, str]:
    """Relative POSIX path -> SHA-256 of every file below a folder, sorted by path."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file_digest(file) for file in files}


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below a folder; times and owners do not count."""
    return value_digest(folder_checksums(folder))


def code_digest(*sources: Path) -> str:
    """SHA-256 over Python files (or folders of them) by meaning.

    Comments, docstrings, layout, and titles and descriptions of fields do not count.

    Files that are not Python (prompt and question templates) count by their bytes.
    """
    parts: dict[str, str] = {}
    for source in sources:
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        for file in files:
            name = f"{source.name}/{file.relative_to(source).as_posix()}" if source.is_dir() else source.name
            if file.suffix == ".py":
                parts[name] = _meaning(file.read_text("utf-8"))
            elif file.suffix in {".yaml", ".jinja"}:
                parts[name] = file_digest(file)
    return value_digest(parts)


# CPython 3.11 counts the depth of a tree for all threads together, and raises when two build one at the same moment
# ("AST constructor recursion depth mismatch").
@cache
@tenacity.retry(
    retry=tenacity.retry_if_exception_type(SystemError),
    stop=tenacity.stop_after_attempt(20),
    wait=tenacity.wait_random(0, 0.05),
    reraise=True,
)
def _meaning(code: str) -> str:
    """SHA-256 of what Python code does."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Field":
            node.keywords = [word for word in node.keywords if word.arg not in ("title", "description")]
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body.pop(0)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
