"""What an engine counts of itself, read from its Prometheus metrics: is it busy or stuck, has it answered others?

To read another engine, add its names to `NAMES`. Source: serving.md 3.1 of vLLM's names; NIM passes them on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from flows.serving import probe
from flows.serving.endpoint import Endpoint

TIMEOUT_S = 5.0
FINISHED = ("stop", "length", "repetition")  # not those that were aborted or went wrong


class Names(NamedTuple):
    """How an engine calls its counters."""

    running: str
    steps: str
    succeeded: str


NAMES = (
    Names(
        running="vllm:num_requests_running",
        steps="vllm:iteration_tokens_total_count",
        succeeded="vllm:request_success_total",
    ),
)


class Counters(NamedTuple):
    """Of one moment: requests it works on; steps its engine has made and requests it has answered since its start."""

    running: float
    steps: float
    succeeded: float


def read(endpoint: Endpoint) -> Counters | None:
    """The engine's counters; None if it has none, or does not give them."""
    if not endpoint.metrics_path:
        return None
    try:
        counters = parse(probe.page(endpoint, endpoint.metrics_path, TIMEOUT_S))
    except (probe.ProbeError, *probe.WRONG_SHAPE):
        return None
    return counters if counters and all(map(math.isfinite, counters)) else None


def parse(text: str) -> Counters | None:
    """The counters of the first engine whose names the text holds, summed over models and workers.

    Raises:
        ValueError: the text is no Prometheus exposition.
    """
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {sample.name for sample in samples}
    for names in NAMES:
        if {names.running, names.steps} <= found:
            answered = [one for one in samples if one.labels.get("finished_reason", FINISHED[0]) in FINISHED]
            return Counters(_sum(samples, names.running), _sum(samples, names.steps), _sum(answered, names.succeeded))
    return None


def _sum(samples: Iterable[Sample], name: str) -> float:
    return sum(sample.value for sample in samples if sample.name == name)
