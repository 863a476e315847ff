"""What a run does now, for who waits for it: a bar in a terminal, lines in a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

LINE_S = 60.0  # between two lines of one stage

Show = Callable[[dict[str, Any]], None]


@contextmanager
def shown(console: Console) -> Iterator[Show]:
    """What shows the contents of a run's `progress.json`; call it about once a second."""
    if not console.is_terminal:
        yield lines(console)
        return
    stage, note = TextColumn("{task.fields[stage]:<10}"), TextColumn("{task.fields[note]}")
    with Progress(stage, BarColumn(30), TimeElapsedColumn(), note, console=console, transient=True) as bar:
        task = bar.add_task("", total=1, stage="waiting", note="for the worker")

        def show(seen: dict[str, Any]) -> None:
            total, words = seen["total"] or 1, _words(seen)
            bar.update(task, completed=seen["done"], total=total, stage=seen["stage"], note=words)

        yield show


def lines(console: Console, clock: Callable[[], float] = time.monotonic) -> Show:
    """A line as soon as the stage is another one, and one a minute while it goes on."""
    began, told, due = clock(), "", 0.0
    console.print("  waiting for the worker")

    def show(seen: dict[str, Any]) -> None:
        nonlocal told, due
        now = clock()
        if seen["stage"] == told and now < due:
            return
        told, due = seen["stage"], now + LINE_S
        share = f"{100 * seen['done'] / seen['total']:3.0f} %" if seen["total"] else "     "
        text = f"  {now - began:4.0f} s  {told:<10} {share}  {_words(seen)}"
        console.print(escape(text.rstrip()), soft_wrap=True)

    return show


def _words(seen: dict[str, Any]) -> str:
    return f"{seen['note']} {' '.join(f'{key} {value:.3g}' for key, value in seen['figures'].items())}"
