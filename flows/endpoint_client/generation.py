"""A file of questions through an endpoint: replies in a file, and figures about them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from flows.endpoint_client.batch import complete
from flows.endpoint_client.kept import Kept, key_of
from flows.endpoint_client.request import BatchOptions, Completion, Request
from flows.endpoint_client.rows import write_replies
from flows.endpoint_client.target import Target
from flows.progress import Progress


class Generation(BaseModel):
    """What came of a file of questions.

    `asked` were asked this time, the others had been answered before; `tokens_per_s` is over the answers of this time,
    None where the server counts no tokens or nothing was asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: int
    asked: int
    failed: int
    truncated: int
    seconds: float
    tokens_per_s: float | None
    output: str


def generate(
    target: Target, requests: Sequence[Request], options: BatchOptions, kept: Path, output: Path, progress: Progress
) -> tuple[Generation, list[Completion]]:
    """Ask everything that `kept` does not hold yet, and write all replies to `output` once they are there.

    Raises:
        RefusedError, NoAnswerError: see `complete`; what came is in `kept`.
    """
    with Kept(kept) as memory:
        before = set(memory.completions)
    started = time.monotonic()

    def done(count: int) -> None:
        progress(count, len(requests), f"{count} of {len(requests)} requests")

    found = complete(target, requests, options, kept, done)
    seconds = time.monotonic() - started
    write_replies(output, requests, found)
    answers = {key_of(target, request, options): one for request, one in zip(requests, found, strict=True)}
    new = {key: one for key, one in answers.items() if key not in before}
    counts = [one.tokens for one in new.values() if one.tokens is not None]
    figures = Generation(
        requests=len(requests),
        asked=len(new),
        failed=sum(bool(one.error) for one in found),
        truncated=sum(one.truncated for one in found),
        seconds=seconds,
        tokens_per_s=sum(counts) / max(seconds, 1e-9) if counts else None,
        output=str(output),
    )
    return figures, found
