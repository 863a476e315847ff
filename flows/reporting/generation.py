"""What came of a file of questions, as Markdown for the artifact of its run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.endpoint_client.generation import Generation
from flows.endpoint_client.request import Completion, Request
from flows.reporting.markdown import plain, table
from flows.reporting.words import DASH, duration, number

ROWS = 10


def generation_line(found: Generation) -> str:
    """The run in one sentence: `120 requests, 118 replies, 2 failed, 34.1 tokens/s; ...`."""
    rate = f", {number(found.tokens_per_s, 1)} tokens/s" if found.tokens_per_s is not None else ""
    return (
        f"{found.requests:,} requests, {found.requests - found.failed:,} replies, {found.failed:,} failed{rate}: "
        f"{found.output}"
    )


def generation_markdown(found: Generation, requests: Sequence[Request], completions: Sequence[Completion]) -> str:
    """Figures, the first rows, and the first of those that failed; texts show as they were typed."""
    rows = [
        ["requests", f"{found.requests:,}"],
        ["asked this time", f"{found.asked:,}"],
        ["failed", f"{found.failed:,}"],
        ["cut off at the longest reply", f"{found.truncated:,}"],
        ["time", duration(found.seconds)],
        ["tokens/s", number(found.tokens_per_s, 1)],
        ["file", plain(found.output)],
    ]
    pairs = list(zip(requests, completions, strict=True))
    failed = [(request, one) for request, one in pairs if one.error][:ROWS]
    parts = ["# Replies of an endpoint", table(["", ""], rows), f"## The first {min(ROWS, len(pairs))}"]
    parts += [table(["id", "asked", "reply", "tokens"], [_row(*pair) for pair in pairs[:ROWS]])]
    if failed:
        lines = [[plain(request.id), plain(_asked(request)), plain(one.error)] for request, one in failed]
        parts += [f"## Without a reply, the first {len(failed)}", table(["id", "asked", "why"], lines)]
    return "\n\n".join(parts) + "\n"


def _row(request: Request, completion: Completion) -> list[Any]:
    tokens = (
        DASH if completion.tokens is None else f"{completion.tokens:,}{' (cut off)' if completion.truncated else ''}"
    )
    return [plain(request.id), plain(_asked(request)), plain(completion.text), tokens]


def _asked(request: Request) -> str:
    return request.prompt or str(request.messages[-1].get("content", ""))
