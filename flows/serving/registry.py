"""Every variant and every runtime by name: the one list of each."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from flows.serving.config import ServeConfig
from flows.serving.endpoint import ProcessRecord
from flows.serving.runtimes import process
from flows.serving.variants import command, custom, llama_cpp, nim, sglang, transformers_serve, vllm
from flows.serving.variants.launch import Launch, Place


class Variant(Protocol):
    """What a variant module offers."""

    def problems(self, config: ServeConfig, container: bool) -> list[str]:
        """What in the settings, or missing on this machine, cannot work; a line each, no folder needed."""

    def check_folder(self, config: ServeConfig, folder: Path) -> None:
        """Raise ServingError unless the model folder has what this variant serves."""

    def launch(self, config: ServeConfig, place: Place) -> Launch:
        """What to run there; for settings without problems and a checked folder."""


class Runtime(Protocol):
    """What a runtime module offers; see `runtimes/process.py` for what each promises."""

    CONTAINER: bool

    def place(self, model_dir: Path, port: int) -> Place:
        """Where a server of that folder runs, as it sees it."""

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


VARIANTS: dict[str, Variant] = {
    "transformers": transformers_serve,
    "vllm": vllm,
    "nim": nim,
    "command": command,
    "sglang": sglang,
    "llama-cpp": llama_cpp,
    "custom": custom,
}
RUNTIMES: dict[str, Runtime] = {"process": process}
