"""What a variant hands to a runtime: what to run, where, and how its health and progress are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from flows.errors import ServingError
from flows.progress import Progress
from flows.store.digest import value_digest

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

# How the right model is told in /v1/models: `id`: the name is listed; `root`: and its `root` is the model's path;
# `none`: nothing is known beforehand, the server is asked for the name once it is ready.
Identity = Literal["id", "root", "none"]


@dataclass(frozen=True)
class Place:
    """Where a server is to run. `model_path` is `model_dir` as the server sees it; both are absolute.

    In a container the programs are those of the image. With a network of its own, whatever port it listens on inside
    is reached at `port` from outside.
    """

    model_dir: Path
    model_path: str
    host: str
    port: int
    container: bool = False
    own_network: bool = False


class Mount(NamedTuple):
    """A folder of this machine that a container needs beside the model."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Order:
    """What a runtime is told beside the launch.

    Attributes:
        config: the settings; a runtime takes its own options from it.
        place: as given to the variant.
        endpoints_dir: the folder of records to which the server belongs.
        revision: digest of what is asked for.
        progress: told of what takes long before anything runs, as a pull of an image.
        patient: whether that is waited for; if not, it is begun and NotYetError raised.
    """

    config: ServeConfig
    place: Place
    endpoints_dir: Path
    revision: str
    progress: Progress
    patient: bool = True


class NotYetError(ServingError):
    """It cannot be started yet, and nobody should wait; something that takes long is under way. Try again later."""


class LogSign(NamedTuple):
    """A log line that shows how far a start is; the pattern's first group, if any, is a share in percent."""

    words: str
    pattern: str


DOWNLOADING = LogSign("downloading", r"(?:download|fetching|pulling)[^\n]*?\b(\d{1,3})\s?%")
LOADING = LogSign("loading weights", r"loading [^\n]*?(?:weights|shards)[^\n]*?\b(\d{1,3})\s?%")
LOADING_STARTED = LogSign("loading weights", r"starting to load model|load weight begin|loading model")
CAPTURING = LogSign("capturing CUDA graphs", r"captur[^\n]*?\b(\d{1,3})\s?%")
COMPILING = LogSign(
    "compiling",
    r"starting torch\.compile|torch\.compile takes|dynamo bytecode|compiling a graph|compile and warming up|"
    r"warming up model|capture cuda graph",
)
# Of one line the first sign that fits is shown.
ENGINE_SIGNS = (DOWNLOADING, LOADING, CAPTURING, COMPILING, LOADING_STARTED)


@dataclass(frozen=True)
class Launch:
    """One server to start.

    Attributes:
        command: takes the place of an image's entrypoint and command; None runs the image's own.
        env: added to the inherited environment (process) or to the image's. Secrets belong here, never in `command`.
        model: the name clients use; empty if only the server knows it (`identity` is then `none`).
        ready_path: answers `ready_status` within `ready_timeout_s` when ready; empty: there is none, so the endpoint
            can be UNVERIFIED at best.
        root: what /v1/models must show as the model's root, if `identity` is `root`.
        image: container image, empty if the variant names none.
        port: where it will listen: the place's port, or another one on which the variant insists.
        mounts: folders that a container needs beside the model.
        startup_budget_s: seconds to the first answer, unless the user says otherwise.
        probe_interval_s: seconds that a definition wishes between checks; the watcher's passes are not made by it.
        failure_threshold: misses of a running endpoint that make it UNHEALTHY.
        metrics_path: where the engine's Prometheus metrics are; empty: it has none, or calls them as no engine of
            `flows/serving/metrics.py` does.
        signs: how progress reads from the log.
        warnings: what the user should know though it stops nothing.
    """

    command: list[str] | None
    env: dict[str, str] = field(repr=False)
    model: str
    ready_path: str
    image: str = ""
    port: int = 0
    identity: Identity = "id"
    root: str = ""
    mounts: tuple[Mount, ...] = ()
    ready_status: int = 200
    ready_timeout_s: float = 5
    startup_budget_s: float = 600
    probe_interval_s: float = 10
    failure_threshold: int = 3
    metrics_path: str = ""
    signs: tuple[LogSign, ...] = field(default=(DOWNLOADING, LOADING))
    warnings: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256 of what runs: two launches with the same one run the same server."""
        return value_digest([self.command, self.env, self.image, self.mounts, self.model])
