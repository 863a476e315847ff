"""The record of one endpoint: where it is, what it serves, and how to find its process or container again."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from flows.serving.front.record import FrontRecord
from flows.serving.state import State
from flows.serving.variants.launch import Identity
from flows.serving.watch_options import WatchOptions

KEY_VARIABLE = "FINETUNE_ENDPOINT_API_KEY"


class ProcessRecord(BaseModel):
    """A process that can be told from a later one with the same pid.

    `start_ticks` is the process's start, in clock ticks since boot; `boot_id` is the kernel's name for that boot.
    The process leads a session of its own, and all output of that session goes to `log`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pid: int
    start_ticks: int
    boot_id: str
    log: str

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"process {self.pid}"


class ContainerRecord(BaseModel):
    """A container of this machine: its engine's socket, and its id there. `log` is the file its output is copied to.

    `boot_id` is the kernel's name for the boot in which it was started; empty if that is not known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    name: str
    socket: str
    log: str
    boot_id: str = ""

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"container {self.name}"


class ClusterRecord(BaseModel):
    """What runs in a Kubernetes cluster: the object that owns the rest, and where it is asked from here.

    `via` is the way there: the Service inside the cluster, the API server's proxy, or an address of the user's. Its
    pods' output is copied to the file `log`. `clients_url` is for clients, the same for every start of the name
    `endpoint`; `port` is where its pods listen, `owner` the mark of our store there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kubeconfig: str = ""
    context: str = ""
    namespace: str
    kind: str
    name: str
    url: str = ""
    via: Literal["service", "proxy", "address"] = "proxy"
    log: str
    endpoint: str = ""
    owner: str = ""
    port: int = 0
    clients_url: str = ""

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.kind} {self.namespace}/{self.name}"


class ExternalRecord(BaseModel):
    """A server that somebody else runs. `key_variable` names the environment variable of its key; `block` the Prefect
    block from which the flows fill that variable.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    key_variable: str = ""
    block: str = ""
    log: str = ""

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"server at {self.url}"


# What each runtime's servers are recorded as.
RECORDS: dict[str, type[BaseModel]] = {
    "process": ProcessRecord,
    "docker": ContainerRecord,
    "kubernetes": ClusterRecord,
    "external": ExternalRecord,
}


def _url(text: str) -> str:
    try:
        httpx.URL(text)
        urlsplit(text).port  # noqa: B018 - looked at for its ValueError
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError(f"no URL ({error})") from error
    return text


class Endpoint(BaseModel):
    """One endpoint. `url` is an OpenAI base URL (ends in /v1); `model` is the name clients put in their requests.

    `settings` is a digest of the command and the environment the server was started with; `revision` numbers the
    promotions of the name, from 1 (0: not promoted yet); `why` says more about `state`; `started` is ISO 8601, UTC;
    `run_id` and `run_url` name the run that started it. `model_dir` is the folder on this machine. How it is checked
    (`ready_path` to `metrics_path`) is as in `Launch`; `watch` is what the watcher may do by itself. `front` is what
    clients ask in place of the server, None if they ask the server.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    url: Annotated[str, AfterValidator(_url)]
    state: State
    why: str = ""
    model: str
    model_uri: str = ""
    model_dir: str = ""
    variant: str
    runtime: str
    process: ProcessRecord | ContainerRecord | ClusterRecord | ExternalRecord
    port: int
    ready_path: str
    ready_status: int = 200
    ready_timeout_s: float = 5
    identity: Identity = "id"
    root: str = ""
    probe_interval_s: float = 10
    failure_threshold: int = 3
    metrics_path: str = ""
    watch: WatchOptions = WatchOptions()
    settings: str
    front: FrontRecord | None = None
    revision: int = 0
    started: str
    run_id: str = ""
    run_url: str = ""

    @model_validator(mode="after")
    def _process_fits(self) -> Self:
        if not isinstance(self.process, RECORDS.get(self.runtime, ())):
            raise ValueError(f"runtime {self.runtime} has no {type(self.process).__name__}")
        return self

    @property
    def log(self) -> str:
        """Path of the server's log file; empty if it has none here."""
        return self.process.log

    @property
    def log_words(self) -> str:
        """Where the log is, as a sentence; empty if there is none here."""
        return f"Its log is {self.log}." if self.log else ""

    @property
    def public_url(self) -> str:
        """OpenAI base URL for clients: its front's or cluster's, which stay when the server changes."""
        return self.front.url if self.front else getattr(self.process, "clients_url", "") or self.url

    @property
    def key_variable(self) -> str:
        """Name of the environment variable with the key that clients' requests need; empty if they need none."""
        if self.front and self.front.guarded:
            return KEY_VARIABLE
        return getattr(self.process, "key_variable", "")

    @property
    def ready_url(self) -> str:
        """URL that answers `ready_status` when the server says it is ready; meaningless without a `ready_path`."""
        return f"{self.url.removesuffix('/v1')}{self.ready_path}"
