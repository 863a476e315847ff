"""One worker at a time for one key, over all machines: an object that its holder renews, and that others take when he
does not.

Every change of the object is on condition of what was read before, so of two who want it one gets it. Ages are told by
the server's clock alone.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flows.store.attempts import SupersededError
from flows.store.bucket.client import Bucket, BucketError

LEASE_S = 45.0  # without renewal the holder is taken for dead
BEATS = 4  # renewals a lease
POLL_S = 2.0


@contextmanager
def leased(
    bucket: Bucket,
    name: str,
    waiting: Callable[[], None],
    lease_s: float = LEASE_S,
    poll_s: float = POLL_S,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[HeldLease]:
    """Hold the lease object `name`; calls `waiting` once if somebody else has it.

    Between its looks it calls `pause` with `poll_s` seconds; what that raises ends the waiting.

    Raises:
        BucketError: the bucket cannot be reached.
    """
    told = False
    while (ours := _try(bucket, name, lease_s)) is None:
        if not told:
            waiting()
            told = True
        pause(poll_s)
    with _renewed(ours):
        yield ours


@contextmanager
def unless_held(bucket: Bucket, name: str, lease_s: float = LEASE_S) -> Iterator[bool]:
    """Hold the lease object `name` if nobody else has it; whether that is so. It waits for nobody.

    Raises:
        BucketError: the bucket cannot be reached.
    """
    lease = _try(bucket, name, lease_s)
    if lease is None:
        yield False
        return
    with _renewed(lease):
        yield True


@contextmanager
def _renewed(lease: HeldLease) -> Iterator[None]:
    """Renew it as long as this lasts, then give it back."""
    beat = threading.Thread(target=lease.renew, name=f"lease {lease.name}", daemon=True)
    beat.start()
    try:
        yield
    finally:
        lease.ended.set()
        beat.join()
        with suppress(BucketError):  # then it runs out by itself
            lease.release()


def held(bucket: Bucket, name: str) -> bool:
    """Whether somebody holds it now."""
    found = bucket.read(name)
    if found is None:
        return False
    facts = _facts(found.content)
    return not facts["free"] and found.age_s <= facts["lease_s"]


def _try(bucket: Bucket, name: str, lease_s: float) -> HeldLease | None:
    """The lease; None if somebody has it, or was quicker."""
    found = bucket.read(name)
    facts = _facts(found.content) if found else {"number": 0, "free": True, "lease_s": 0}
    if found is not None and not facts["free"] and found.age_s <= facts["lease_s"]:
        return None
    lease = HeldLease(bucket, name, int(facts["number"]) + 1, lease_s)
    return lease if lease.write(found.etag if found else None) else None


def _facts(content: bytes) -> dict[str, Any]:
    """What the object says; one that says nothing to us is waited for like any other."""
    try:
        facts = json.loads(content)
        return {"number": int(facts["number"]), "free": bool(facts["free"]), "lease_s": float(facts["lease_s"])}
    except (ValueError, KeyError, TypeError):
        return {"number": 0, "free": False, "lease_s": LEASE_S}


class HeldLease:
    """A lease that we have, as long as it is renewed. `number` counts its takers: it is greater for every later one."""

    def __init__(self, bucket: Bucket, name: str, number: int, lease_s: float) -> None:
        self.number = number
        self.ended = threading.Event()
        self._bucket, self.name, self._lease_s = bucket, name, lease_s
        self._id = uuid.uuid4().hex
        self._beat = 0
        self._etag = ""
        self._renewed = time.monotonic()
        self._lost = ""

    def check(self) -> None:
        """Raise SupersededError if the lease is known to be lost."""
        if not self._lost and time.monotonic() - self._renewed > self._lease_s:
            self._lost = f"it was not renewed for {self._lease_s:.0f} s"
        if self._lost:
            raise SupersededError(f"The lease of {self.name} is lost: {self._lost}. What was made with it is not kept.")

    def ask(self) -> None:
        """The same, asked of the bucket."""
        found = self._bucket.read(self.name)
        if found is None or json.loads(found.content).get("id") != self._id:
            self._lost = "another machine has taken it over"
        self.check()

    def write(self, etag: str | None, free: bool = False) -> bool:
        """Write the object if it is still the one with the ETag; whether it was."""
        self._beat += 1
        facts = {
            "id": self._id,
            "owner": f"{platform.node()}, process {os.getpid()}",
            "number": self.number,
            "beat": self._beat,  # so that each renewal has an ETag of its own
            "free": free,
            "lease_s": self._lease_s,
        }
        asked = time.monotonic()
        written = self._bucket.write_if(self.name, json.dumps(facts).encode(), etag)
        if written is not None:
            self._etag, self._renewed = written, asked
        return written is not None

    def renew(self) -> None:
        """Renew it again and again until it is `ended` or lost; a bucket that does not answer is asked again."""
        while not self._lost and not self.ended.wait(self._lease_s / BEATS):
            with suppress(BucketError):
                if not self.write(self._etag):
                    self._lost = "another machine has taken it over"

    def release(self) -> None:
        """Give it back, if we still have it."""
        if not self._lost:
            self.write(self._etag, free=True)
