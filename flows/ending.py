"""What must be done to its end when a process is told to end: SIGTERM, as a cancel or `make stop` sends it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_S = 0.1


def hear_again(kind: type[BaseException]) -> None:
    """Send this process SIGTERM again whenever the exception of that kind that it raises was lost.

    Python raises it wherever the main thread happens to be. In the callback of a weak reference, of which every import
    makes one, it reaches nobody but `sys.unraisablehook`: a run that is cancelled would go on until it is killed.
    """
    others = sys.unraisablehook

    def lost(one: sys.UnraisableHookArgs) -> None:
        if one.exc_type is not kind:
            others(one)
            return
        again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGTERM))
        again.daemon = True
        again.start()

    sys.unraisablehook = lost


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
