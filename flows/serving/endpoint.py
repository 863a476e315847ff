"""The record of one endpoint: where it is, what it serves, and how to find its process again."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from flows.serving.state import State


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


class Endpoint(BaseModel):
    """One endpoint. `url` is an OpenAI base URL (ends in /v1); `model` is the name clients put in their requests.

    `settings` is a digest of the command and the environment the server was started with; `why` says more about
    `state`; `started` is ISO 8601, UTC; `run_id` and `run_url` name the run that started it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    url: str
    state: State
    why: str = ""
    model: str
    model_uri: str = ""
    variant: str
    runtime: str
    process: ProcessRecord
    port: int
    ready_path: str
    settings: str
    started: str
    run_id: str = ""
    run_url: str = ""

    @property
    def log(self) -> str:
        """Path of the server's log file."""
        return self.process.log

    @property
    def ready_url(self) -> str:
        """URL that answers 200 when the server says it is ready."""
        return f"{self.url.removesuffix('/v1')}{self.ready_path}"
