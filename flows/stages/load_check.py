"""A short load run of the candidate beside the current model."""

from __future__ import annotations

import time
from pathlib import Path

from flows.endpoint_client.load import LoadFigures, compare_load, load_run
from flows.endpoint_client.request import Request
from flows.evaluation.live import live_requests
from flows.reporting.contract import CheckReport
from flows.serving.access import target
from flows.serving.endpoint import Endpoint
from flows.serving.promotion import Promotion
from flows.stages.evidence import Questions
from flows.stages.run_context import RunContext

PROMPTS = 64
PLAIN = ("What do you know?", "Explain in two sentences what a contract is.", "Give three examples of goods.")


def load_check(run: RunContext, promotion: Promotion, evaluation: Path | None) -> CheckReport:
    """Stream the same requests to the candidate, then to the current model, and compare."""
    options, began = promotion.config.promotion, time.monotonic()
    asked = live_requests(Questions(evaluation, PROMPTS).rows) if evaluation else []
    prompts = asked or [Request(id=text, messages=[{"role": "user", "content": text}]) for text in PLAIN]

    def figures(endpoint: Endpoint) -> LoadFigures:
        return load_run(
            target(endpoint), prompts, options.load_concurrency, options.load_requests, options.load_max_tokens
        )

    assert promotion.candidate is not None
    candidate = figures(promotion.candidate)
    current = figures(promotion.current) if promotion.current else None
    reasons = compare_load(candidate, current, options.load_tolerance)
    words = "; ".join(reasons) or _words(candidate, current)
    return CheckReport(name="load run", passed=not reasons, words=words, seconds=time.monotonic() - began)


def _words(candidate: LoadFigures, current: LoadFigures | None) -> str:
    def of(figures: LoadFigures) -> str:
        failed = f"{figures.errors} of {figures.requests} requests failed" if figures.errors else "no request failed"
        if figures.ttft_p99_s is None:
            return f"{failed}, so there is nothing to measure"
        speed = f"{figures.tokens_per_s:.1f} tokens/s, first token within {figures.ttft_p99_s:.2f} s (p99)"
        return f"{speed}, {failed}"

    return of(candidate) + (f"; the current model: {of(current)}" if current else "")
