"""Branches of a run side by side: threads, since the work itself is in child processes or on other machines."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, TypeVar

from flows.ending import to_the_end
from flows.errors import FinetuneError
from flows.stages.run_context import RunContext

T = TypeVar("T")
END_S = 10.0  # a worker that cancels a run waits 30 s before it kills


class Branches:
    """The threads of a run's branches, so many at a time; in the end all are waited for.

    A signal that ends the run (it is cancelled) is raised in the main thread alone. Left by it, all that branches have
    begun is ended as well: children here, and runs in work pools.
    """

    def __init__(self, run: RunContext, at_once: int) -> None:
        self._run = run
        self._threads = ThreadPoolExecutor(max(1, at_once))
        self._started: list[Future[Any]] = []
        self._ended = False

    def start(self, work: Callable[..., T], *given: object) -> Future[T]:
        """Have a thread do it as soon as one is free."""
        # In a copy of our context: Prefect keeps there which run a task belongs to.
        future = self._threads.submit(contextvars.copy_context().run, work, *given)
        self._started.append(future)
        return future

    def __enter__(self) -> Branches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None or issubclass(kind, Exception):
                self._threads.shutdown()
            else:
                self._end()
        except BaseException:  # cancelled while the last ones were waited for
            self._end()
            raise

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._run.ending.set()
        with to_the_end():
            self._threads.shutdown(wait=False, cancel_futures=True)
            wait([one for one in self._started if not one.cancelled()], END_S)


def side_by_side(
    run: RunContext, works: Mapping[str, Callable[[], T]], at_once: int
) -> tuple[dict[str, T], dict[str, FinetuneError]]:
    """Do all of it, so many at a time; one that fails does not stop the others.

    Returns:
        What each gave, and the errors of those that gave nothing, by name and in the order of `works`.
    """
    done: dict[str, T] = {}
    failed: dict[str, FinetuneError] = {}
    with Branches(run, at_once) as branches:
        futures = {name: branches.start(work) for name, work in works.items()}
        for name, future in futures.items():
            try:
                done[name] = future.result()
            except FinetuneError as error:
                failed[name] = error
    return done, failed
