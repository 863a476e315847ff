"""Names in the kernel for what is leased: abstract Unix sockets (unix(7)). They are no files: nobody can remove them.

A name is gone when the last process that has its descriptor is gone, as a lock is. All users of a machine see the same
ones; containers with a network of their own see only theirs.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

NAMES = Path("/proc/net/unix")
LEASED = re.compile(r"/gpu-(\d+)/([0-9a-f]+)/[0-9a-f]+$")
POLL_S = 0.01


def give(folder: Path, index: int, parts: Iterable[int]) -> int:
    """Say that these hundredths of a card are leased; the descriptor that says so as long as it is open."""
    mask = sum(1 << part for part in parts)
    return _bound(f"{_beginning(folder)}/gpu-{index}/{mask:x}/{secrets.token_hex(8)}")


def taken(folder: Path) -> dict[int, set[int]]:
    """Card -> its hundredths that are leased by the locks of this folder; nothing where the kernel does not tell."""
    found: dict[int, set[int]] = {}
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = NAMES.read_text("utf-8", "replace").splitlines()
    for line in lines:
        name = line.partition("@")[2]
        if name.startswith(_beginning(folder)) and (said := LEASED.search(name)):
            mask = int(said[2], 16)
            found.setdefault(int(said[1]), set()).update(part for part in range(mask.bit_length()) if mask >> part & 1)
    return found


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One at a time, whatever becomes of the folder's files meanwhile."""
    while True:
        try:
            descriptor = _bound(f"{_beginning(folder)}/deciding")
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            time.sleep(POLL_S)
    try:
        yield
    finally:
        os.close(descriptor)


def _bound(name: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(f"\0{name}")
        return one.detach()


def _beginning(folder: Path) -> str:
    """Of all names that belong to the folder: short, since a name has 107 bytes at most."""
    return f"prefect-finetune-gpus/{hashlib.sha256(os.path.realpath(folder).encode()).hexdigest()[:16]}"
