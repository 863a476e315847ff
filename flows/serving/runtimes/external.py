"""Runtime `external`: a server that somebody else runs. Nothing is started or ended, it is only asked."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from pydantic import Field

from flows.config import Config
from flows.errors import ServingError
from flows.serving.endpoint import ExternalRecord
from flows.serving.names import NAME_OR_NONE
from flows.serving.variants.launch import Launch, Order, Place

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

CONTAINER = False
VARIABLE = r"^([A-Za-z_][A-Za-z0-9_]{0,127})?$"


class ExternalOptions(Config):
    """A server of somebody else, by its address."""

    url: str = Field(
        default="",
        max_length=2048,
        title="Base URL",
        description="Address of its OpenAI-compatible API up to and with /v1, as https://llm.example.org/v1; without "
        "user, password or key. Empty takes that of the block.",
    )
    health_path: str = Field(
        default="/v1/models",
        max_length=1024,
        title="Health path",
        description="Path beside /v1 that answers 200 when the server is ready, as /health; empty means there is none, "
        "and the endpoint stays UNVERIFIED.",
        pattern=r"^(/[!-~]*)?$",
    )
    key_variable: str = Field(
        default="",
        title="Variable of the key",
        description="Name of the environment variable that holds the API key, sent as a bearer token by whoever asks "
        "the endpoint; only its name, never the key. Empty means an open endpoint.",
        pattern=VARIABLE,
    )
    block: str = Field(
        default="",
        title="OpenAI Endpoint block",
        description="Name of a Prefect block with address, model and key, in place of the fields above.",
        pattern=NAME_OR_NONE,
    )


def problems(config: ServeConfig) -> list[str]:
    """An address that cannot be one, or one that holds a secret; a key that is not there."""
    options = config.external
    if options.block and not options.url:
        return ["serve.external.block: a block is looked up by the flows only; give serve.external.url here."]
    found = _url_problems(options.url)
    if config.watch.restart_unhealthy_after_s:
        found.append(
            "serve.watch.restart_unhealthy_after_s: nobody here can start a server of somebody else again; leave 0."
        )
    if options.key_variable and not os.environ.get(options.key_variable):
        found.append(
            f"serve.external.key_variable: {options.key_variable} is not set in the environment of this process "
            f"({os.getpid()}); set it where the flows run (the watcher asks too), or leave the field empty."
        )
    return found


def place(model_dir: Path, port: int, config: ServeConfig) -> Place:
    """Nowhere of ours; `model_dir` is what is said to be served there, or `Path()` if nobody says."""
    return Place(model_dir, str(model_dir), "", port, own_network=True)


def choose_port(wanted: int) -> int:
    """None is taken: the port stands in the address."""
    return 0


def start(launch: Launch, log: Path, order: Order) -> ExternalRecord:
    """Only write down where it is."""
    options = order.config.external
    return ExternalRecord(url=options.url.rstrip("/"), key_variable=options.key_variable, block=options.block)


def url(record: ExternalRecord, port: int) -> str:
    """Its address as the user gave it."""
    return record.url


def alive(record: ExternalRecord) -> bool:
    """Always true: nobody here owns it, so a refused connection says nothing about its life, only that it is missed."""
    return True


def exit_code(record: ExternalRecord) -> None:
    """Never known."""


def rebooted(record: ExternalRecord) -> bool:
    """Never known."""
    return False


def logs(record: ExternalRecord, count: int) -> list[str]:
    """None: its log is where it runs."""
    return []


def stop(record: ExternalRecord, port: int, grace_s: float = 0) -> list[str]:
    """End nothing: it is not ours."""
    return []


def list_owned(endpoints_dir: Path) -> list[tuple[str, ExternalRecord]]:
    """None is ours."""
    return []


def headers(record: ExternalRecord) -> dict[str, str]:
    """What a request to it needs: the key, read now from its environment variable.

    Raises:
        ServingError: the variable is not set here.
    """
    if not record.key_variable:
        return {}
    key = os.environ.get(record.key_variable, "")
    return {"Authorization": f"Bearer {key}"} if key else _no_key(record)


def tls(record: ExternalRecord) -> None:
    """As usual."""


def _no_key(record: ExternalRecord) -> NoReturn:
    raise ServingError(
        f"The key for {record.url} is not here: the environment variable {record.key_variable} is not set in process "
        f"{os.getpid()}."
    )


def _url_problems(url: str) -> list[str]:
    field = "serve.external.url"
    if not url:
        return [f"{field}: say where the server is, as https://llm.example.org/v1."]
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").encode("idna")  # none of its parts empty or longer than 63
        good = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        good = False
    if not good or re.search(r"\s", url):
        return [f"{field}: {url.rpartition('@')[2]!r} is no address; give one as https://llm.example.org/v1."]
    if parts.username or parts.password or parts.query or parts.fragment:
        return [
            f"{field}: an address is shown to everybody, so it may hold no user, password, key or '?': put the key "
            "into an environment variable and name that in serve.external.key_variable."
        ]
    if not parts.path.rstrip("/").endswith("/v1"):
        return [f"{field}: {url} does not end in /v1; give the base URL of the API, as {url.rstrip('/')}/v1."]
    return []
