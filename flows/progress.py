"""How long work tells the outside how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by work functions, as often as they like, with how much is done."""

    def __call__(self, done: float, total: float, note: str = "", /, **figures: float) -> None:
        """Report `done` of `total` (same unit), a short note, and named figures such as loss or tokens_per_s."""


def silent(done: float, total: float, note: str = "", /, **figures: float) -> None:
    """Report to nobody."""
