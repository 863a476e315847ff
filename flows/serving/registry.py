"""Every variant and every runtime by name: the one list of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from flows.serving.config import ServeConfig
from flows.serving.endpoint import ProcessRecord
from flows.serving.runtimes import process
from flows.serving.variants import transformers_serve
from flows.serving.variants.launch import Launch


class Runtime(Protocol):
    """What a runtime module offers; see `runtimes/process.py` for what each promises."""

    def choose_port(self, wanted: int) -> int:
        """A free port, the wanted one unless that is 0."""

    def start(self, launch: Launch, log: Path) -> ProcessRecord:
        """Start what outlives us."""

    def alive(self, record: ProcessRecord) -> bool:
        """Whether it still runs."""

    def exit_code(self, record: ProcessRecord) -> int | None:
        """How it ended, if that is known."""

    def stop(self, record: ProcessRecord, port: int, grace_s: float = ...) -> list[int]:
        """End it and all it started; the ids of what was ended."""


VARIANTS: dict[str, Callable[[ServeConfig, Path, int], Launch]] = {"transformers": transformers_serve.launch}
RUNTIMES: dict[str, Runtime] = {"process": process}
