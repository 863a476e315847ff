"""What must be done to its end when a process is told to end: SIGTERM, as a cancel or `make stop` sends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def to_the_end() -> Iterator[None]:
    """Hear of a SIGTERM only when this is over: a second one must not cut short what the first one has begun.

    Python raises in the main thread alone, so in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def later(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGTERM, later)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if heard:
            signal.raise_signal(signal.SIGTERM)
