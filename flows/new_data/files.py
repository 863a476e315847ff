"""What lies in a place: a folder, a file or a pattern, on this machine or behind any URL that fsspec knows (`s3://`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol
from pydantic import BaseModel

from flows.errors import ConfigError, DataError
from flows.store.digest import file_digest

MAGIC = set("*?[")


class FileSeen(BaseModel):
    """A file as it was seen.

    Attributes:
        size: bytes.
        mark: changes when the file is written: its time on this machine, the store's own mark (ETag) elsewhere.
        digest: of its content; empty while nobody has asked. Elsewhere it is the mark, for which nothing is read.
    """

    size: int
    mark: str
    digest: str = ""


Files = dict[str, FileSeen]


def look(places: Sequence[str]) -> Files:
    """All files of the places, by address; hidden ones are left out, as half-written ones often are.

    Raises:
        ConfigError: a place is not there, or needs a package that is not; names the field.
        DataError: a place cannot be looked at, now.
    """
    found: Files = {}
    for number, place in enumerate(places):
        here = f"places[{number}]"
        if not place.strip():
            raise ConfigError(f"{here}: it is empty. Name a folder, a file or a pattern.")
        try:
            found |= _of(place, here)
        except (ConfigError, DataError):
            raise
        except FileNotFoundError:
            raise ConfigError(f"{here}: there is no file or folder '{place}'.") from None
        except (ImportError, ValueError) as error:  # no such protocol, or a package for it is missing
            raise ConfigError(f"{here}: '{place}' cannot be read here: {error}.") from error
        except Exception as error:  # of whatever file system
            raise DataError(f"{here}: '{place}' cannot be looked at: {str(error) or type(error).__name__}.") from error
    if odd := [name for name in found if name != name.encode("utf-8", "ignore").decode()]:
        raise DataError(f"places: the name of {odd[0]!a} is no UTF-8. Give that file another one.")
    return found


def with_digests(files: Files, former: Files) -> Files:
    """The same with the digests of their contents; a file that is as it was is not read again.

    Raises:
        DataError: a file has gone since.
    """
    done: Files = {}
    for name, seen in files.items():
        before = former.get(name)
        if before is not None and before.digest and (before.size, before.mark) == (seen.size, seen.mark):
            done[name] = before
        elif seen.digest:
            done[name] = seen
        else:
            try:
                done[name] = seen.model_copy(update={"digest": file_digest(Path(name))})
            except OSError as error:
                raise DataError(f"{name} cannot be read: {error.strerror}.") from error
    return done


def _of(place: str, here: str) -> Files:
    files: Any
    files, path = fsspec.core.url_to_fs(str(Path(place).expanduser()) if get_protocol(place) == "file" else place)
    files.invalidate_cache()
    if MAGIC & set(path):
        listed = files.glob(path, detail=True)
    elif files.isfile(path):
        listed = {path: files.info(path)}
    else:
        # A place that cannot be read is none that is empty, as fsspec has it; folders in it are left out (lost+found).
        listed = files.find(path, detail=True, **({"on_error": _refuse} if isinstance(files, LocalFileSystem) else {}))
        if not listed and not files.exists(path):
            raise ConfigError(f"{here}: there is no file or folder '{place}'.")
    local = isinstance(files, LocalFileSystem)
    return {
        name if local else files.unstrip_protocol(name): _seen(files, name, info, local)
        for name, info in listed.items()
        if info["type"] == "file" and not any(part.startswith(".") for part in _below(name, path))
    }


def _refuse(error: Exception) -> None:
    if not isinstance(error, FileNotFoundError):  # gone in the meantime
        raise error


def _below(name: str, path: str) -> list[str]:
    """The parts of a file's name that come after the place's own."""
    return name.removeprefix(path).strip("/").split("/") if name.startswith(path) else [name.rpartition("/")[2]]


def _seen(files: Any, name: str, info: dict[str, Any], local: bool) -> FileSeen:
    if local:
        return FileSeen(size=info["size"], mark=repr(info["mtime"]))
    mark = str(info.get("ETag") or info.get("etag") or info.get("md5Hash") or files.checksum(name)).strip('"')
    return FileSeen(size=info["size"], mark=mark, digest=mark)
