"""What lies in a front's folder, and the right to change it.

A promotion, the watcher and whoever makes a token may want to at the same time, so all of them take the folder's lock.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from flows.errors import ServingError
from flows.serving.endpoint import ProcessRecord
from flows.serving.front import runtime_api
from flows.serving.front.record import FrontRecord
from flows.serving.runtimes import process
from flows.store.files import read_json, write_json

LOG_SUFFIX = ".front"  # of the name in the log file's name: it tells a front from a model server


def place(endpoints_dir: Path, name: str) -> Path:
    """The folder of the front of that name."""
    return endpoints_dir.resolve() / name / "front"


@contextmanager
def held(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the right to change that front; yields whether it is ours, which it always is after a wait."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with (folder / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def load(endpoints_dir: Path, name: str) -> FrontRecord | None:
    """The front that was started last for that name, whatever its endpoint's record says; or None."""
    return read(place(endpoints_dir, name))


def read(folder: Path) -> FrontRecord | None:
    """The record in that folder, or None."""
    try:
        return FrontRecord.model_validate_json((folder / "record.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def save(record: FrontRecord) -> None:
    """Write the record down."""
    write_json(record.path / "record.json", record.model_dump(mode="json"))


def forget(folder: Path) -> None:
    """Delete the record, and with it the port that was chosen."""
    (folder / "record.json").unlink(missing_ok=True)


def running(folder: Path) -> ProcessRecord | None:
    """The process that was started last, if it was not stopped; it may have ended by itself."""
    try:
        return ProcessRecord.model_validate_json((folder / "process.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def save_running(folder: Path, record: ProcessRecord | None) -> None:
    """Write down which process it is, or that there is none."""
    if record is None:
        (folder / "process.json").unlink(missing_ok=True)
    else:
        write_json(folder / "process.json", record.model_dump())


def alive(record: FrontRecord) -> bool:
    """Whether its process runs and does what it is told (a halted one would accept connections and do nothing)."""
    found = running(record.path)
    if found is None or not process.alive(found):
        return False
    try:
        return bool(runtime_api.ask(record.path, "show info"))
    except ServingError:
        return False


def shares(folder: Path) -> dict[str, int]:
    """Which servers get which share of the requests, as was said last."""
    return dict(read_json(folder / "shares.json") or {})


def save_shares(folder: Path, wanted: dict[str, int]) -> None:
    """Write down which servers get which share."""
    write_json(folder / "shares.json", wanted)


def logs(endpoints_dir: Path) -> set[str]:
    """Logs of the fronts that are recorded: what else runs as a front is an orphan."""
    found = (running(path.parent) for path in endpoints_dir.resolve().glob("*/front/process.json"))
    return {one.log for one in found if one}
