"""Tokens and operations of this process: work functions count, the meter reads."""

from __future__ import annotations

import threading


class Counter:
    """Tokens and floating-point operations so far; None before the first."""

    def __init__(self) -> None:
        self.tokens: float | None = None
        self.flops: float | None = None
        self._lock = threading.Lock()

    def add(self, tokens: float, flops: float) -> None:
        """Count work that has just been done."""
        with self._lock:
            self.tokens = (self.tokens or 0.0) + tokens
            self.flops = (self.flops or 0.0) + flops


# One a process, as the meter measures one: a stage's child process does one stage's work.
done_here = Counter()
