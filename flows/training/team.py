"""Processes that train one model together, each on its share of every batch (data parallel).

Whoever starts them (torchrun, Ray) names each its place in RANK and WORLD_SIZE, as torch.distributed has it.
"""

from __future__ import annotations

import os
from typing import Any

from flows.errors import ConfigError


def size() -> int:
    """How many processes train together; 1 for one alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leads() -> bool:
    """Whether this is the process that reports, marks checkpoints and writes the model."""
    return int(os.environ.get("RANK", "0")) == 0


def share(batch: int, accumulation: int, processes: int) -> tuple[int, int]:
    """Batch and accumulation of each process, so that a step of all sees the sequences that one process would see.

    The batch of a process is the greatest that divides its sequences and is not above the one asked for.

    Raises:
        ConfigError: the sequences of a step cannot be dealt out evenly.
    """
    sequences = batch * accumulation
    if sequences % processes:
        raise ConfigError(
            f"batch_size x accumulation is {sequences} sequences a step, which {processes} processes cannot share "
            f"evenly. Take a multiple of {processes}, or other processes in the resources."
        )
    own = sequences // processes
    largest = next(size for size in range(min(batch, own), 0, -1) if own % size == 0)
    return largest, own // largest


def together() -> Any:
    """Accelerate's view of the processes: `wait_for_everyone`, `main_process_first`. One alone waits for nobody."""
    from accelerate import PartialState

    return PartialState()
