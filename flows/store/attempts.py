"""Who may still write for a key: each start of work takes the next number, and only the newest may publish.

A lock alone does not do: a run that only seemed dead (a machine that slept, a lock that a network file system lost)
goes on where it stood, and holds what it takes for its lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flows.errors import TransientError
from flows.store.files import read_json, write_json
from flows.store.locks import alone

ENVIRONMENT_VARIABLE = "FINETUNE_ATTEMPT"


class SupersededError(TransientError):
    """Another run has taken the work over; a retry waits for what that one makes, and takes it."""


class Lease(Protocol):
    """What says, past this machine, whether the attempt is still the newest."""

    def check(self) -> None:
        """Raise SupersededError if it is not, as far as is known here."""

    def ask(self) -> None:
        """The same, asked anew of whoever knows."""


@dataclass(frozen=True)
class Attempt:
    """One start of work on a key: its number, and the file with the number of the newest."""

    file: Path
    number: int
    lease: Lease | None = None

    def check(self) -> None:
        """Ask whether this is still the newest attempt; costs a read of a small file.

        Raises:
            SupersededError: it is not.
        """
        if (newest := _newest(self.file)) != self.number:
            raise SupersededError(
                f"Attempt {self.number} at {self.file.name} was taken for dead, and attempt {newest} has taken its "
                "work over. What this one has made is not kept."
            )
        if self.lease is not None:
            self.lease.check()

    def ask(self) -> None:
        """The same, asked anew of whoever knows past this machine."""
        self.check()
        if self.lease is not None:
            self.lease.ask()

    @contextmanager
    def committing(self) -> Iterator[None]:
        """While this lasts nobody can take the work over: what is written in it is written by the newest attempt.

        Raises:
            SupersededError: it is not the newest.
        """
        with alone(_lock(self.file)):
            self.ask()
            yield

    @property
    def environment(self) -> dict[str, str]:
        """For a child process, which asks with `check_own`."""
        return {ENVIRONMENT_VARIABLE: f"{self.number}:{self.file}"}


def take(file: Path, lease: Lease | None = None) -> Attempt:
    """The next attempt; all former ones are over. The caller holds the key's lock."""
    with alone(_lock(file)):
        number = _newest(file) + 1
        write_json(file, {"number": number, "pid": os.getpid()})
    return Attempt(file, number, lease)


def check_own() -> None:
    """In a child process: ask whether the attempt that it works for is still the newest. Without one all is well.

    Raises:
        SupersededError: it is not.
    """
    number, _, file = os.environ.get(ENVIRONMENT_VARIABLE, "").partition(":")
    if file:
        Attempt(Path(file), int(number)).check()


def _newest(file: Path) -> int:
    found = read_json(file)
    return int(found["number"]) if isinstance(found, dict) else 0


def _lock(file: Path) -> Path:
    return file.with_name(f".{file.name}.lock")
