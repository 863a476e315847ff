"""Every variant and every runtime by name: the one list of each."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from flows.serving.config import ServeConfig
from flows.serving.runtimes import docker, external, kubernetes, process
from flows.serving.variants import command, custom, existing, llama_cpp, nim, sglang, transformers_serve, vllm
from flows.serving.variants.launch import Launch, Order, Place

Record = TypeVar("Record")


class Variant(Protocol):
    """What a variant module offers."""

    def problems(self, config: ServeConfig, container: bool) -> list[str]:
        """What in the settings, or missing on this machine, cannot work; a line each, no folder needed."""

    def check_folder(self, config: ServeConfig, folder: Path) -> None:
        """Raise ServingError unless the model folder has what this variant serves."""

    def launch(self, config: ServeConfig, place: Place) -> Launch:
        """What to run there; for settings without problems and a checked folder."""


class Runtime(Protocol[Record]):
    """What a runtime module offers; see `runtimes/process.py` for what each promises."""

    CONTAINER: bool

    def problems(self, config: ServeConfig) -> list[str]:
        """What in the settings, or missing on this machine, this runtime cannot do; a line each."""

    def place(self, model_dir: Path, port: int, config: ServeConfig) -> Place:
        """Where a server of that folder runs, as it sees it."""

    def choose_port(self, wanted: int) -> int:
        """A free port, the wanted one unless that is 0."""

    def start(self, launch: Launch, log: Path, order: Order) -> Record:
        """Start what outlives us."""

    def url(self, record: Record, port: int) -> str:
        """The OpenAI base URL at which it is asked from here."""

    def headers(self, record: Record) -> dict[str, str]:
        """HTTP headers that a request to it needs; raises ServingError if a key for them is not here."""

    def tls(self, record: Record) -> ssl.SSLContext | None:
        """How its certificate is checked, and with which of ours it is asked; None: as usual."""

    def alive(self, record: Record) -> bool:
        """Whether it still runs."""

    def exit_code(self, record: Record) -> int | None:
        """How it ended, if that is known."""

    def rebooted(self, record: Record) -> bool:
        """Whether the machine it ran on was started again since; False if that is not known."""

    def logs(self, record: Record, count: int) -> list[str]:
        """The last lines of its output."""

    def stop(self, record: Record, port: int, grace_s: float = ...) -> Sequence[int | str]:
        """End it and all it started; the ids of what was ended."""

    def list_owned(self, endpoints_dir: Path) -> Sequence[tuple[str, Record]]:
        """What runs for that folder of records, known to it or not, with the endpoint's name."""


VARIANTS: dict[str, Variant] = {
    "transformers": transformers_serve,
    "vllm": vllm,
    "nim": nim,
    "command": command,
    "sglang": sglang,
    "llama-cpp": llama_cpp,
    "custom": custom,
}
RUNTIMES: dict[str, Runtime[Any]] = {
    "process": process,
    "docker": docker,
    "kubernetes": kubernetes,
    "external": external,
}


def variant_of(config: ServeConfig) -> Variant:
    """The variant of the settings; what stands in its place where nothing is started."""
    return existing if config.runtime == "external" else VARIANTS[config.variant]
