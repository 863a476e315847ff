"""The container engine of this machine: its socket (Docker or Podman), its images, and its errors in words."""

from __future__ import annotations

import math
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

from flows.errors import ServingError
from flows.progress import Progress

if TYPE_CHECKING:
    from docker import APIClient

TIMEOUT_S = 60.0
PODMAN = "Podman Engine"
# What engines say, and what to do about it; the first that fits is taken.
REMEDIES = (
    (
        r"nvidia|device driver|CDI device",
        "The engine cannot give GPUs: install the NVIDIA Container Toolkit (Docker: nvidia-ctk runtime configure; "
        "Podman: nvidia-ctk cdi generate), or set serve.docker.gpus to 0.",
    ),
    (
        r"address already in use|port is already allocated|port is already in use",
        "The port is taken: choose another serve.port, or 0 for a free one.",
    ),
    (
        r"no such host|network is unreachable|i/o timeout|connection refused|TLS handshake timeout",
        "Its registry cannot be reached from this machine: check the name, or bring the image here another way "
        "(docker save, docker load).",
    ),
    (
        r"unauthorized|access denied|access to the resource is denied|authentication required|403 Forbidden",
        "Log in to its registry (docker login REGISTRY) with an account that may read it, and check its name.",
    ),
    (
        r"manifest unknown|no such image|not known|not found: manifest|repository .* not found|name unknown",
        "Check name and tag.",
    ),
    (
        r"executable file .* not found|no such file or directory: OCI|stat .*: no such file",
        "The image has no such program: check the command, or take an image that holds it.",
    ),
    (r"cgroup|memory limit|cpu", "Set serve.docker.memory_gib and serve.docker.cpus as this machine allows, or to 0."),
)


class MissingError(ServingError):
    """The engine knows no container or image of that name."""


@contextmanager
def connect(wanted: str = "", timeout_s: float = TIMEOUT_S) -> Iterator[APIClient]:
    """A client of the engine at `wanted`, or where one is looked for; the engine's errors become ours.

    Raises:
        ServingError: there is no engine, this user may not use it, it does not answer, or it refused a request.
        MissingError: it knows no such container or image.
    """
    import docker  # here: it takes 0.2 s, and most flows use no container
    from docker.errors import APIError, DockerException, NotFound
    from requests.exceptions import RequestException

    path = socket_path(wanted)
    _reach(path)
    try:
        client = docker.APIClient(f"unix://{path}", version=_version(path, os.stat(path).st_mtime), timeout=timeout_s)
        try:
            yield client
        finally:
            client.close()
    except NotFound as error:
        raise MissingError(words(error.explanation)) from error
    except APIError as error:
        raise ServingError(f"The container engine refused: {words(error.explanation)}") from error
    except (DockerException, RequestException) as error:
        raise ServingError(f"The container engine at {path} does not answer as one: {error}. Restart it.") from error


def socket_path(wanted: str) -> str:
    """The wanted socket, else DOCKER_HOST's, else the first there is of Docker's and Podman's usual ones.

    Raises:
        ServingError: it is the address of another machine.
    """
    if wanted := wanted or os.environ.get("DOCKER_HOST", ""):
        if "://" in wanted and not wanted.startswith("unix://"):
            raise ServingError(
                f"{wanted} is no socket of this machine. The model folder is mounted from this machine, so its engine "
                "is needed: unset DOCKER_HOST, or give a path as /var/run/docker.sock."
            )
        return wanted.removeprefix("unix://")
    own = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    usual = ["/var/run/docker.sock", f"{own}/docker.sock", f"{own}/podman/podman.sock", "/run/podman/podman.sock"]
    return next((path for path in usual if os.path.exists(path)), usual[0])


def fetch_image(client: APIClient, image: str, progress: Progress, budget_s: float = math.inf) -> None:
    """Pull the image unless it is there. Progress counts bytes.

    Raises:
        ServingError: it is not there and cannot be pulled, or not within `budget_s` seconds.
    """
    if has_image(client, image):
        return
    layers: dict[str, tuple[int, int]] = {}
    failure: Any = ""
    note = f"pulling {image}"
    progress(0, 1, note)
    try:
        for event in _events(client, image, budget_s):
            failure = event.get("error", failure)
            amount = event.get("progressDetail") or {}
            if event.get("status") == "Downloading" and amount.get("total"):
                layers[event["id"]] = amount.get("current", 0), amount["total"]
                done, total = map(sum, zip(*layers.values(), strict=True))
                progress(done, total, note)
    except TimeoutError as error:
        raise ServingError(
            f"The image {image} was not pulled within {budget_s:g} s: it was still downloading. "
            "Look whether its registry answers, pull it by hand beforehand, or give it a longer serve.startup_budget_s."
        ) from error
    if failure:
        raise ServingError(f"The image {image} is not on this machine and cannot be pulled: {words(failure)}")


def _events(client: APIClient, image: str, budget_s: float) -> Iterator[dict[str, Any]]:
    """What the engine tells of a pull, which is read by a thread: a registry that stalls keeps it waiting for ever.

    Raises:
        TimeoutError: it is not over after `budget_s` seconds.
    """
    from docker.errors import APIError

    told: Queue[dict[str, Any] | BaseException | None] = Queue()

    def read() -> None:
        try:
            for event in client.pull(image, stream=True, decode=True):
                told.put(event)
            told.put(None)
        except APIError as error:
            told.put({"error": error.explanation})
            told.put(None)
        except BaseException as error:
            told.put(error)

    Thread(target=read, name=f"pull {image}", daemon=True).start()
    until = time.monotonic() + budget_s
    while True:
        try:
            event = told.get(timeout=None if budget_s == math.inf else max(0.0, until - time.monotonic()))
        except Empty:
            raise TimeoutError from None
        if event is None:
            return
        if isinstance(event, BaseException):
            raise event
        yield event


def has_image(client: APIClient, image: str) -> bool:
    """Whether the image is on this machine."""
    from docker.errors import ImageNotFound

    try:
        client.inspect_image(image)
    except ImageNotFound:
        return False
    return True


def is_podman(client: APIClient) -> bool:
    """Whether the engine is Podman, which takes GPUs by another name."""
    return any(part.get("Name") == PODMAN for part in client.version().get("Components") or [])


def words(explanation: Any) -> str:
    """The engine's words on one line, and what to do."""
    text = explanation.decode(errors="replace") if isinstance(explanation, bytes) else str(explanation)
    text = " ".join(text.split())[:500].rstrip(". ")
    remedy = next((remedy for pattern, remedy in REMEDIES if re.search(pattern, text, re.IGNORECASE)), "")
    return f"{text}. {remedy}".rstrip()


@lru_cache
def _version(path: str, made: float) -> str:
    """The engine's API version, asked once for a socket `made` then: Podman takes 0.3 s to say."""
    import docker

    with closing(docker.APIClient(f"unix://{path}", version="auto", timeout=TIMEOUT_S)) as client:
        return str(client.api_version)


def _reach(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(10)
        try:
            probe.connect(path)
        except PermissionError as error:
            raise ServingError(
                f"This user may not use the container engine at {path}: permission denied. Join its group (sudo "
                "usermod -aG docker $USER, then log in again), or start an engine of your own (systemctl --user start "
                "podman.socket)."
            ) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ServingError(
                f"There is no container engine: there is no {path}. Start one (sudo systemctl start docker, or "
                "systemctl --user start podman.socket), or name its socket in serve.docker.socket or DOCKER_HOST."
            ) from error
        except OSError as error:
            raise ServingError(
                f"No container engine answers at {path}: {error.strerror or error}. Start it again (sudo systemctl "
                "restart docker), or name another socket in serve.docker.socket."
            ) from error
