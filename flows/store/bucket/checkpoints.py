"""Checkpoints of a training on their way to the bucket and back, so that another machine goes on where one stopped."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from pathlib import Path

from flows.store.attempts import Attempt, SupersededError
from flows.store.bucket.client import Bucket, BucketError
from flows.store.bucket.folders import DamagedError, pull, push, remove
from flows.store.digest import folder_checksums
from flows.store.layout import MANIFEST

FOLDERS = "checkpoint-*"
MARK = "whole.json"  # who writes a checkpoint leaves this in it last
LOOK_S = 1.0


class CheckpointPusher:
    """Pushes the newest whole checkpoint of a folder whenever there is a newer one, in a thread of its own."""

    def __init__(self, bucket: Bucket, name: str, folder: Path, attempt: Attempt, say: Callable[[str], None]) -> None:
        """`name` is that of the folder in the bucket; `say` is told of what went wrong, which ends no training."""
        self._bucket, self._name, self._folder, self._attempt, self._say = bucket, name, folder, attempt, say
        self._ended = threading.Event()
        self._pushed = newest(folder)
        context = contextvars.copy_context()  # in which a run's log is found
        self._thread = threading.Thread(target=context.run, args=[self._push_all], name=f"push {name}", daemon=True)

    def __enter__(self) -> CheckpointPusher:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _push_all(self) -> None:
        while not self._ended.wait(LOOK_S):
            step = newest(self._folder)
            if step is None or (self._pushed is not None and step <= self._pushed):
                continue
            try:
                push_checkpoint(self._bucket, self._name, self._folder, step, self._attempt)
            except SupersededError as error:
                self._say(str(error))
                return
            except FileNotFoundError:
                continue  # removed for a newer one meanwhile
            except BucketError as error:
                self._say(f"Checkpoint {step} is not in the bucket yet: {error}")
                continue
            self._pushed = step


def newest(folder: Path) -> int | None:
    """The step of the newest whole checkpoint of a folder."""
    marks = folder.glob(f"{FOLDERS}/{MARK}")
    return max((step for mark in marks if (step := _step(mark.parent.name)) is not None), default=None)


def push_checkpoint(bucket: Bucket, name: str, folder: Path, step: int, attempt: Attempt) -> None:
    """Put one checkpoint into the bucket, then remove the older ones.

    Raises:
        SupersededError: another attempt has taken the training over; nothing is there then.
        FileNotFoundError: the checkpoint was removed meanwhile.
        BucketError: the bucket does not answer.
    """
    source = folder / f"checkpoint-{step}"
    checksums = folder_checksums(source)
    files = {file: {"sha256": sha, "bytes": (source / file).stat().st_size} for file, sha in checksums.items()}
    attempt.ask()
    push(bucket, source, f"{name}/checkpoint-{step}", {"step": step, "files": files}, attempt.ask)
    for older in (found for found in steps(bucket, name) if found < step):
        remove(bucket, f"{name}/checkpoint-{older}")


def fetch_newest(bucket: Bucket, name: str, folder: Path, say: Callable[[str], None]) -> None:
    """Bring the newest checkpoint here if it is newer than those of the folder; a damaged one is told and removed."""
    for step in steps(bucket, name):
        here = newest(folder)
        if here is not None and here >= step:
            return
        remote = f"{name}/checkpoint-{step}"
        try:
            found = pull(bucket, remote, folder / f"checkpoint-{step}")
        except DamagedError as error:
            say(f"The checkpoint {step} in the bucket is damaged: {error}. It is not used.")
            remove(bucket, remote)
            continue
        if found is not None:
            (folder / f"checkpoint-{step}" / MANIFEST).unlink()  # it belongs to the bucket, not to the checkpoint
            say(f"Checkpoint {step} comes from the bucket; the training goes on from it.")
            return


def steps(bucket: Bucket, name: str) -> list[int]:
    """The whole checkpoints in the bucket, the newest first."""
    found = [entry.split("/") for entry in bucket.entries(f"{name}/") if entry.endswith(f"/{MANIFEST}")]
    return sorted((step for parts in found if (step := _step(parts[-2])) is not None), reverse=True)


def _step(name: str) -> int | None:
    number = name.removeprefix("checkpoint-")
    return int(number) if number.isdigit() else None
