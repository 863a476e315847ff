"""Which GPUs this machine has."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from flows.errors import ConfigError

PRETENDED = "FINETUNE_GPUS"
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Gpu:
    """A card: its index, as CUDA_VISIBLE_DEVICES takes it, and its memory in GiB (0: not known)."""

    index: int
    memory_gib: float


def gpus() -> list[Gpu]:
    """The cards of this machine, by index; of those that CUDA_VISIBLE_DEVICES names, if it does.

    FINETUNE_GPUS names them instead: how many, each with a memory that is not known (`2`), or the memory of each in
    GiB (`80,80`). A machine without cards can so pretend to have some, and a machine can keep some to itself.

    Raises:
        ConfigError: FINETUNE_GPUS is neither.
    """
    cards = _all_gpus()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if not all(word.strip().isdigit() for word in visible):  # not set, or names of cards
        return cards
    return [card for card in cards if card.index in {int(word) for word in visible}]


def _all_gpus() -> list[Gpu]:
    pretended = os.environ.get(PRETENDED, "")
    if pretended:
        return _pretended(pretended)
    try:
        told = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # no driver, no cards
        return []
    rows = [line.split(",") for line in told.splitlines() if line.strip()]
    return [Gpu(int(index), int(mib) / 1024) for index, mib in rows]


def _pretended(words: str) -> list[Gpu]:
    try:
        if "," not in words:
            return [Gpu(index, 0.0) for index in range(int(words))]
        return [Gpu(index, float(memory)) for index, memory in enumerate(words.split(","))]
    except ValueError:
        raise ConfigError(
            f"{PRETENDED}={words!r} names no GPUs. Write how many (2), or the GiB of each (80,80)."
        ) from None
