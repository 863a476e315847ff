"""How long after a server's end its failed start is known, with its cause and log: the kernel tells when it ended."""

from __future__ import annotations

import os
import select
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flows.base_models.resolve import BaseModelConfig, resolve
from flows.progress import silent
from flows.serving import records
from flows.serving.causes import Cause, StartError
from flows.serving.config import ServeConfig
from flows.serving.endpoint import ProcessRecord
from flows.serving.promotion import start_endpoint
from tests.benchmarks.rows import Row, compare

NAME = "failed-start"
WHERE = "transformers serve on a folder without a tokenizer: from its end to the error, against the limit"
STARTS = 5
LIMIT_S = 1.0


def measure(workdir: Path) -> list[Row]:
    """Five failing starts."""
    model = Path(resolve(BaseModelConfig(name="tiny:llama-3"), workdir / "models").path)
    broken = workdir / "broken"
    shutil.copytree(model, broken, ignore=shutil.ignore_patterns("tokenizer*", "special*", "*.jinja"))
    waits = [_wait(broken, workdir / f"endpoints-{number}") for number in range(STARTS)]
    return [
        compare(NAME, WHERE, "s", waits, [LIMIT_S], "<= 1", lambda ratio: ratio <= 1),
        compare(NAME, "the longest of five", "s", [max(waits)], [LIMIT_S], "<= 1", lambda ratio: ratio <= 1),
    ]


def _wait(broken: Path, endpoints: Path) -> float:
    """Seconds from the process's end to the error that tells of it."""
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(_end, endpoints)
        try:
            start_endpoint(ServeConfig(name="timed"), broken, endpoints, silent)
        except StartError as error:
            known, cause = time.time(), error.cause
        assert cause is Cause.UNKNOWN_MODEL
        return known - ended.result(timeout=60)


def _end(endpoints: Path) -> float:
    """When the process of the one record ended."""
    while not (names := records.names(endpoints)):
        time.sleep(0.02)
    endpoint = records.load(endpoints, names[0])
    assert endpoint
    assert isinstance(endpoint.process, ProcessRecord)
    descriptor = os.pidfd_open(endpoint.process.pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)  # a process that has ended reads so
        poll.poll(120_000)
        return time.time()
    finally:
        os.close(descriptor)
