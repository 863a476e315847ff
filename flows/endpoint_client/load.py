"""A short load run: how fast an endpoint streams under so many requests at a time, and a comparison of two runs."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from flows.endpoint_client.request import Request
from flows.endpoint_client.target import Target, make_client, why

if TYPE_CHECKING:
    from openai import OpenAI

WARM_UP = 3  # questions, or one for each that is under way at a time
TIMEOUT_S = 120.0


class LoadFigures(BaseModel):
    """What a load run measured.

    `seconds` is the wall time of all requests, `tokens_per_s` the tokens made in it, by the server's count or, where it
    gives none in a stream, by the parts that came. `ttft_*` are seconds to the first part of a reply (nearest rank):
    of 100 requests or fewer the 99th percentile is the slowest one. None where no request was answered.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: int
    errors: int
    seconds: float
    tokens_per_s: float
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    first_error: str = ""


class _Stream(BaseModel):
    tokens: int = 0
    ttft_s: float = 0.0
    error: str = ""


def load_run(
    target: Target, prompts: Sequence[Request], concurrency: int, requests: int, max_tokens: int
) -> LoadFigures:
    """Ask `requests` questions (the prompts in turn, from the start again), `concurrency` at a time, and measure.

    A few questions before that are not counted: the first ones of a server are slow. Nothing is asked again: an error
    is an error. With few requests the 99th percentile of the time to the first token is the slowest single one, so a
    comparison by it wants tolerance.

    Raises:
        ValueError: there is no prompt.
    """
    if not prompts:
        raise ValueError("a load run needs at least one prompt")
    asked = list(itertools.islice(itertools.cycle(prompts), requests))
    with make_client(target, timeout_s=TIMEOUT_S) as client, ThreadPoolExecutor(concurrency) as pool:

        def one(request: Request) -> _Stream:
            return _stream(client, target, request, max_tokens)

        list(pool.map(one, asked[: max(WARM_UP, concurrency)]))
        started = time.monotonic()
        streams = list(pool.map(one, asked))
        seconds = time.monotonic() - started
    times = sorted(stream.ttft_s for stream in streams if not stream.error)
    errors = [stream.error for stream in streams if stream.error]
    return LoadFigures(
        requests=requests,
        errors=len(errors),
        seconds=seconds,
        tokens_per_s=sum(stream.tokens for stream in streams if not stream.error) / max(seconds, 1e-9),
        ttft_p50_s=_rank(times, 0.5),
        ttft_p99_s=_rank(times, 0.99),
        first_error=errors[0] if errors else "",
    )


def compare_load(candidate: LoadFigures, current: LoadFigures | None, tolerance: float) -> list[str]:
    """The reasons against the candidate, in words; none when it is good enough.

    It must have answered every request, and with `current` measured on the same machine its 99th percentile of the time
    to the first token may be longer, and its tokens/s fewer, by the share `tolerance` (0.2: 20 %) at most. Errors
    of the current one speak for nobody: what it did answer is compared.
    """
    reasons = []
    if candidate.errors:
        reasons.append(
            f"load: {candidate.errors} of {candidate.requests} requests failed, none may; the first: "
            f"{candidate.first_error}"
        )
    if current is None or current.ttft_p99_s is None or candidate.ttft_p99_s is None:
        return reasons
    longest, fewest = current.ttft_p99_s * (1 + tolerance), current.tokens_per_s * (1 - tolerance)
    allowed = f"the current one's {{}} and the tolerance of {100 * tolerance:g} % allow {{}}"
    if candidate.ttft_p99_s > longest:
        words = allowed.format(f"{current.ttft_p99_s:.3f} s", f"{longest:.3f} s")
        reasons.append(f"load: the slowest first token in a hundred took {candidate.ttft_p99_s:.3f} s; {words}")
    if candidate.tokens_per_s < fewest:
        words = allowed.format(f"{current.tokens_per_s:.1f}", f"no fewer than {fewest:.1f}")
        reasons.append(f"load: {candidate.tokens_per_s:.1f} tokens/s; {words}")
    return reasons


def _rank(ordered: list[float], share: float) -> float | None:
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None


def _stream(client: OpenAI, target: Target, request: Request, max_tokens: int) -> _Stream:
    """One streamed reply; whatever goes wrong on the way is its error."""
    started = time.monotonic()
    first = counted = None
    parts, ended = 0, False
    try:
        for chunk in _open(client, target, request, max_tokens):
            if chunk.usage:
                counted = chunk.usage.completion_tokens
            for choice in chunk.choices:
                text = choice.text if request.prompt else choice.delta.content
                if text:
                    parts += 1
                    first = first or time.monotonic()
                ended = ended or bool(choice.finish_reason)
    except Exception as error:  # of two HTTP libraries, JSON, and the API's own
        return _Stream(error=why(error, client))
    if not ended:
        return _Stream(error="the stream broke off" if parts else "the answer was no stream of the API")
    return _Stream(tokens=parts if counted is None else counted, ttft_s=(first or time.monotonic()) - started)


def _open(client: OpenAI, target: Target, request: Request, max_tokens: int) -> Any:
    messages: Any = request.messages
    body: Any = {
        "model": target.model,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.prompt:
        return client.completions.create(prompt=request.prompt, **body)
    return client.chat.completions.create(messages=messages, **body)
