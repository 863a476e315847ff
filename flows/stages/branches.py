"""Branches of a run side by side: threads, since the work itself is in child processes or on other machines."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from flows.errors import FinetuneError

T = TypeVar("T")


def side_by_side(works: Mapping[str, Callable[[], T]], at_once: int) -> tuple[dict[str, T], dict[str, FinetuneError]]:
    """Do all of it, so many at a time; one that fails does not stop the others.

    Returns:
        What each gave, and the errors of those that gave nothing, by name and in the order of `works`.
    """
    done: dict[str, T] = {}
    failed: dict[str, FinetuneError] = {}
    with ThreadPoolExecutor(max(1, at_once)) as threads:
        # Each in a copy of our context: Prefect keeps there which run a task belongs to.
        futures = {name: threads.submit(contextvars.copy_context().run, work) for name, work in works.items()}
        for name, future in futures.items():
            try:
                done[name] = future.result()
            except FinetuneError as error:
                failed[name] = error
    return done, failed
