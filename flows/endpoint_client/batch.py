"""Many requests to one endpoint: several at a time, retried, kept as they come, and counted where they fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path

from flows.endpoint_client.errors import NoAnswerError, RefusedError
from flows.endpoint_client.kept import Kept, key_of
from flows.endpoint_client.request import SILENT, Outcome, Request, Signals, ask
from flows.endpoint_client.request import BatchOptions as BatchOptions
from flows.endpoint_client.request import Completion as Completion
from flows.endpoint_client.target import Target, make_client

LAST_ANSWERS_S = 5.0
STREAK = 8  # failures in a row, at least, after which nothing more is asked


def complete(
    target: Target,
    requests: Sequence[Request],
    options: BatchOptions,
    kept: Path | None,
    done: Callable[[int], None],
    accept_silence: bool = False,
) -> list[Completion]:
    """The completion of each request, in order; equal requests are asked once.

    Answers are appended to the file `kept` as they come. What is there already is not asked again; that holds for
    requests which the server refused for good (400, 413, 422: too long, for instance), too: they are kept with their
    error. Other failures are in the result only, and are asked again by the next run. `done` is called with the number
    of requests that are finished. With `accept_silence` an answer without any choice (a content filter's) is an empty
    text; without, it is a failure.

    Raises:
        RefusedError: wrong key, model or URL, at once; or more requests refused than `failures_allowed` lets pass.
        NoAnswerError: nobody answers any more, or more failures of that kind than `failures_allowed` lets pass.
        ValueError: a request is none, see `Request`.
    """
    keys = [key_of(target, request, options) for request in requests]
    with Kept(kept) as memory:
        tally = _Tally(target, keys, options, memory, done)
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in memory.completions}
        if missing:
            _ask_all(target, missing, options, tally, accept_silence)
        found = {**tally.passing, **memory.completions}
        return [found[key].model_copy(update={"id": request.id}) for key, request in zip(keys, requests, strict=True)]


def _ask_all(
    target: Target, missing: dict[str, Request], options: BatchOptions, tally: _Tally, accept_silence: bool
) -> None:
    signals = Signals()
    if tally.answered:
        signals.speaks.set()

    def one(request: Request) -> Outcome:
        found = ask(client, target, request, options, signals)
        silent = accept_silence and found.completion.error == SILENT
        return Outcome(found.completion.model_copy(update={"error": ""})) if silent else found

    with make_client(target, timeout_s=options.timeout_s) as client:
        pool = ThreadPoolExecutor(options.concurrency)
        futures = {pool.submit(one, request): key for key, request in missing.items()}
        waiting = dict(futures)
        try:
            for future in as_completed(futures):
                tally.take(waiting.pop(future), future.result())
        except BaseException as error:
            signals.given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)
            under_way = {future: key for future, key in waiting.items() if not future.cancelled()}
            # Who is told to end (no Exception) has little time, and an answer may take minutes.
            wait(under_way, None if isinstance(error, Exception) else LAST_ANSWERS_S)
            _keep_answers(under_way, tally)
            raise
        pool.shutdown(wait=False)


def _keep_answers(futures: dict[Future[Outcome], str], tally: _Tally) -> None:
    """What was under way when all was given up, and has come nevertheless."""
    for future, key in futures.items():
        if future.done() and future.exception() is None and not future.result().completion.error:
            tally.memory.keep(key, future.result().completion)


class _Tally:
    """Counts what came, keeps what lasts, and says when it is enough."""

    def __init__(
        self, target: Target, keys: list[str], options: BatchOptions, memory: Kept, done: Callable[[int], None]
    ) -> None:
        self.target, self.memory, self.done = target, memory, done
        self.share, self.total = options.failures_allowed, len(keys)
        self.streak_allowed = max(STREAK, 2 * options.concurrency)
        self.streak = self.failed = 0
        self.passing: dict[str, Completion] = {}
        self.weight = Counter(keys)
        old = {key: memory.completions[key] for key in self.weight if key in memory.completions}
        self.answered = any(not completion.error for completion in old.values())
        self.finished = sum(self.weight[key] for key in old)
        if self.finished:
            done(self.finished)
        for key, completion in old.items():
            if completion.error:
                known = f"{completion.error} (found by a former run; delete {memory.path} to ask again)"
                self._count(key, completion.model_copy(update={"error": known}), RefusedError)

    def take(self, key: str, outcome: Outcome) -> None:
        """Keep it and count it.

        Raises:
            FinetuneError: it is one failure too many.
        """
        completion = outcome.completion
        if completion.error and not outcome.lasting:
            self.passing[key] = completion
        else:
            self.memory.keep(key, completion)
        self.finished += self.weight[key]
        self.done(self.finished)
        if outcome.error is None:
            self.answered, self.streak = True, 0
            return
        self.streak += 1
        self._count(key, completion, type(outcome.error))
        # A refusal belongs to its request, once others were answered; silence belongs to the endpoint.
        if self.streak >= self.streak_allowed and not (outcome.lasting and self.answered):
            raise outcome.error

    def _count(self, key: str, completion: Completion, kind: type[RefusedError] | type[NoAnswerError]) -> None:
        self.failed += self.weight[key]
        if self.failed <= self.share * self.total:
            return
        what = f"{completion.error} (request '{completion.id}')"
        if self.share:
            what = (
                f"left {self.failed} of {self.total} requests without a reply, more than failures_allowed lets pass "
                f"({self.share:g}); at the last one it {what}"
            )
        raise kind(self.target.base_url, what)
