"""Reading source files: which ones, in which encoding, and never a line that does not fit in memory."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.corpus.row import Drop
from flows.errors import DataError

MAX_LINE_BYTES = 10_000_000


def source_files(path: str, suffixes: tuple[str, ...], field: str) -> list[Path]:
    """The files of a source, sorted: itself, or those directly in the folder. `sample:trade_en/...` is shipped.

    Raises:
        DataError: no such path, or nothing in it with one of the suffixes; names the parameter's field.
    """
    root = _root(path, field)
    if root.is_file():
        return [root]
    if not root.exists():
        raise DataError(f"{field}: there is no file or folder '{path}' (looked in {Path.cwd()}).")
    found = sorted(file for file in root.iterdir() if _wanted(file, suffixes))
    if not found:
        others = len(list(root.iterdir()))
        raise DataError(
            f"{field}: the folder '{path}' holds no {' or '.join(suffixes)} file ({others} other entries). "
            f"Put the source files directly in it."
        )
    return found


def _wanted(file: Path, suffixes: tuple[str, ...]) -> bool:
    return file.suffix.lower() in suffixes and file.is_file() and not file.name.startswith(".")


def _root(path: str, field: str) -> Path:
    kind, _, name = path.partition(":")
    if kind != "sample":
        return Path(path).expanduser()
    samples = Path(str(importlib.resources.files("flows.corpus") / "samples"))
    if not (samples / name).exists():
        known = ", ".join(f"sample:{folder.name}" for folder in sorted(samples.iterdir()) if folder.is_dir())
        raise DataError(
            f"{field}: there is no sample '{name}'. There are: {known}, each with exams, terms, transcripts."
        )
    return samples / name


def read_text(file: Path) -> str:
    """A whole file as text.

    Raises:
        DataError: not UTF-8; names the encoding that it seems to have and how to convert it.
    """
    return decode(file.read_bytes(), file)


def decode(data: bytes, file: Path, line: int | None = None) -> str:
    """UTF-8 bytes, with or without a byte order mark, as text.

    Raises:
        DataError: another encoding.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _wrong_encoding(file, line, "UTF-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            data.decode("cp949")
        except UnicodeDecodeError:
            raise _wrong_encoding(file, line, "") from error
        raise _wrong_encoding(file, line, "CP949") from error


def _wrong_encoding(file: Path, line: int | None, guess: str) -> DataError:
    at = f"{file}, line {line}" if line else str(file)
    seems = f"; it looks like {guess}" if guess else ""
    convert = f"iconv -f {guess or 'CP949'} -t UTF-8 '{file}' > converted{file.suffix}"
    return DataError(f"{at}: the text is not UTF-8{seems}. Convert it, for instance with: {convert}")


def read_json(file: Path) -> Any:
    """A JSON file.

    Raises:
        DataError: not JSON (names line and column) or not UTF-8.
    """
    try:
        return json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise DataError(f"{file}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}.") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise DataError(f"{file}: the JSON cannot be read: {str(error)[:200]}.") from error


def read_json_lines(file: Path, drops: list[Drop]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each line; lines that are no object are added to `drops`.

    Raises:
        DataError: a line is not UTF-8.
    """
    for number, line in _lines(file):
        if line is None:
            detail = f"more than {MAX_LINE_BYTES // 1_000_000} MB in one line"
            drops.append(Drop(file=str(file), line=number, reason="line-too-long", detail=detail))
            continue
        text = decode(line, file, number).strip()
        if not text:
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            drops.append(Drop(file=str(file), line=number, reason="not-json", detail=str(error)))
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            drops.append(Drop(file=str(file), line=number, reason="not-an-object", detail=text[:80]))


def _lines(file: Path) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their numbers; None for one that is too long, which is read past without being held."""
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) <= MAX_LINE_BYTES:
                yield number, line
                continue
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_LINE_BYTES)
            yield number, None
