"""Runtime `docker`: a container of this machine's Docker or Podman engine, found again by its id (Linux).

The model folder is mounted read-only at its own path, so /v1/models shows which folder is served. The environment,
secrets included, can be read by whoever may use the engine's socket, as everything in a container can.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import math
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from flows.config import Config
from flows.errors import ServingError
from flows.serving.causes import last_lines
from flows.serving.endpoint import ContainerRecord
from flows.serving.runtimes import engine, process, pull
from flows.serving.variants.launch import Launch, Mount, Order, Place
from flows.store.files import replaced

if TYPE_CHECKING:
    from docker import APIClient

    from flows.serving.config import ServeConfig

CONTAINER = True
GRACE_S = 10
LABEL = "prefect-finetune."
LAST_WORDS_S = 3.0
LOG_TAIL = 1000
SHARES = {"vllm": "gpu_memory_utilization", "sglang": "mem_fraction_static"}
NO_INIT = re.compile(r"docker-init|container-init|catatonit|init binary", re.IGNORECASE)
OUT_OF_MEMORY = 137
ENGINES = "engines.txt"  # in the folder of records: a socket a line

logger = logging.getLogger(__name__)
choose_port = process.choose_port
# [host[:port]/]path[:tag][@digest]: https://pkg.go.dev/github.com/distribution/reference
IMAGE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::\d+)?/)?[0-9a-z]+(?:[._/-]+[0-9a-z]+)*(?::\w[\w.-]{0,127})?(?:@[a-z0-9+._-]+:[0-9a-fA-F]{32,})?",
    re.ASCII,
)


class DockerOptions(Config):
    """A container of this machine's Docker or Podman engine."""

    image: str = Field(
        default="",
        max_length=512,
        title="Image",
        description="Container image with its tag, in place of the variant's; empty means the variant's. It is pulled "
        "if it is not on this machine.",
    )
    network: Literal["bridge", "host"] = Field(
        default="bridge",
        title="Network",
        description="bridge: a network of its own, published on 127.0.0.1 only. host: this machine's network; a server "
        "that cannot be told to listen on 127.0.0.1, as nim, is then open to other machines.",
    )
    shm_gib: float = Field(
        default=8,
        gt=0,
        le=1024,
        title="Shared memory (GiB)",
        description="Largest size of /dev/shm, through which an engine's workers talk; unused it takes no memory.",
    )
    gpus: float = Field(
        default=0,
        ge=0,
        le=64,
        title="GPUs",
        description="How many GPUs the container gets; 0 is none. Less than 1 is a share of one, for vllm and sglang "
        "only, which keep to it by their GPU memory share.",
    )
    gpu_ids: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9:_/-]{1,80}$")]] = Field(
        default=[],
        max_length=64,
        title="GPU ids",
        description="Which GPUs, by index or UUID (nvidia-smi -L), as many as asked for; empty means the first ones.",
    )
    memory_gib: float = Field(
        default=0,
        ge=0,
        le=65536,
        title="Memory (GiB)",
        description="Memory the container may use; 0 means no limit. A server that needs more is ended.",
    )
    cpus: float = Field(
        default=0, ge=0, le=4096, title="CPUs", description="CPU time it may use, in cores; 0 means no limit."
    )
    mounts: list[Annotated[str, Field(pattern=r"^/[^:\x00]*:/[^:\x00]*(:ro|:rw)?$", max_length=8192)]] = Field(
        default=[],
        max_length=100,
        title="Further mounts",
        description="Folders of this machine to show in the container, SOURCE:TARGET an entry, read-only unless :rw "
        "follows, as /data/cache:/cache:rw.",
    )
    socket: str = Field(
        default="",
        max_length=1024,
        title="Engine socket",
        description="Path of the engine's socket; empty means DOCKER_HOST, else the first there is of Docker's and "
        "Podman's usual ones.",
    )


def problems(config: ServeConfig) -> list[str]:
    """An image's name that is none, GPUs that cannot be given so, mounts of nothing, no engine."""
    found = _image_problems(config) + _gpu_problems(config)
    found += [
        f"serve.docker.mounts: there is no {mount.source} on this machine, or this user may not see it."
        for mount in _further_mounts(config)
        if not os.path.exists(mount.source)
    ]
    try:
        with engine.connect(config.docker.socket):
            pass
    except ServingError as error:
        found.append(f"serve.docker.socket: {error}")
    return found


def _image_problems(config: ServeConfig) -> list[str]:
    """The engine itself says "Not Found" of what leads to another of its paths."""
    image = config.docker.image or getattr(config.options, "image", "")
    if not image or (IMAGE.fullmatch(image) and ".." not in image and "//" not in image):
        return []
    field = "serve.docker.image" if config.docker.image else f"serve.{config.section}.image"
    return [f"{field}: {image[:200]!r} is no image's name; give one as registry.example.org/team/server:1.2."]


def place(model_dir: Path, port: int, config: ServeConfig) -> Place:
    """In a container; on a network of its own it must listen on all addresses, and is published on 127.0.0.1."""
    own_network = config.docker.network == "bridge"
    host = "0.0.0.0" if own_network else process.HOST
    return Place(model_dir, str(model_dir), host, port, container=True, own_network=own_network)


def start(launch: Launch, log: Path, order: Order) -> ContainerRecord:
    """Start the container; its output is copied to `log` when asked for, and at its end.

    An image that is not there is pulled first, which may take as long as the startup budget by itself.

    Raises:
        NotYetError: the order is not patient and the image is being pulled.
        ServingError: there is no engine, no such image, or the engine cannot start it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with engine.connect(order.config.docker.socket, timeout_s=300) as client:
        if order.patient:
            budget_s = order.config.startup_budget_s or launch.startup_budget_s
            engine.fetch_image(client, launch.image, order.progress, budget_s)
        else:
            pull.ensure(client, engine.socket_path(order.config.docker.socket), launch.image, log.parent)
    try:
        return _run(launch, log, order, init=True)
    except ServingError as error:
        if not NO_INIT.search(str(error)):
            raise
    logger.warning("The container engine has no init program: processes that a server leaves behind stay as zombies.")
    return _run(launch, log, order, init=False)


def url(record: ContainerRecord, port: int) -> str:
    """At its port on this machine."""
    return f"http://{process.HOST}:{port}/v1"


def headers(record: ContainerRecord) -> dict[str, str]:
    """A server of this machine needs none."""
    return {}


def tls(record: ContainerRecord) -> None:
    """It is asked without."""


def alive(record: ContainerRecord) -> bool:
    """Whether it runs. True while the engine does not answer: nobody knows then, and its port can still be asked."""
    try:
        state = _state(record)
    except ServingError:
        return True
    return bool(state and state["Running"])


def exit_code(record: ContainerRecord) -> int | None:
    """Exit code; None if it runs or is gone. 137 if it ran out of memory, whatever its first process made of that."""
    state = _state(record)
    if not state or state["Running"]:
        return None
    return OUT_OF_MEMORY if state["OOMKilled"] else int(state["ExitCode"])


def rebooted(record: ContainerRecord) -> bool:
    """Whether the machine was started again since; engines of this project start nothing again by themselves."""
    return bool(record.boot_id) and record.boot_id != process.boot_id()


def logs(record: ContainerRecord, count: int) -> list[str]:
    """The last lines of its output, which are copied to the log file; those of the file if it is gone.

    An engine may write the last words of a container a moment after its end: one that ended silently is read again.
    It is read whole then: Podman 4 leaves out of a log's tail what was written before the end of its line.
    """
    if alive(record):
        return _copied(record, count, max(count, LOG_TAIL))
    process.wait_until(lambda: bool("".join(_copied(record, count, "all"))), LAST_WORDS_S)
    return last_lines(Path(record.log), count)


def _copied(record: ContainerRecord, count: int, tail: int | Literal["all"]) -> list[str]:
    with contextlib.suppress(ServingError, OSError), engine.connect(record.socket) as client:
        _copy_log(client, record, tail)
    return last_lines(Path(record.log), count)


def stop(record: ContainerRecord, port: int, grace_s: float = GRACE_S) -> list[str]:
    """TERM, wait, KILL, copy its whole output to the log file and remove it, then check that it is gone.

    Returns:
        The container's name; empty if it did not run any more.

    Raises:
        ServingError: it is still there, or the port is still served.
    """
    from docker.errors import NotFound

    state = _state(record)
    if state is None:
        return []
    with engine.connect(record.socket) as client:
        if state["Running"]:
            _end(client, record, grace_s)
        with contextlib.suppress(OSError):  # a full disk is no reason to leave it running
            _copy_log(client, record, tail="all")
        with contextlib.suppress(NotFound):
            _remove(client, record.id)
    if not process.wait_until(lambda: _state(record) is None, 10):
        raise ServingError(f"The container {record.name} cannot be removed. Look at it with `docker inspect`.")
    if not state["Running"]:
        return []
    if not process.wait_until(lambda: not process.port_served(port), 5):
        owner = process.port_owner(port)
        raise ServingError(f"The container {record.name} is gone, but port {port} still answers: {owner}.")
    return [record.name]


def list_owned(endpoints_dir: Path) -> list[tuple[str, ContainerRecord]]:
    """The containers that were started for that folder, running or not, in every engine that ever held one of them.

    What an engine holds that does not answer is not known and left out.
    """
    wanted = {"label": f"{LABEL}owner={endpoints_dir.resolve()}"}
    owned = []
    for path in _sockets(endpoints_dir):
        try:
            with engine.connect(path) as client:
                found = client.containers(all=True, filters=wanted)
        except ServingError as error:
            logger.warning("Its containers are not known: %s", error)
            continue
        owned += [_owned(one, path) for one in found]
    return owned


def _owned(container: dict[str, Any], path: str) -> tuple[str, ContainerRecord]:
    """The endpoint's name and the container, of one line of the engine's list."""
    labels = {key.removeprefix(LABEL): value for key, value in container["Labels"].items()}
    record = ContainerRecord(
        id=container["Id"],
        name=container["Names"][0].lstrip("/"),
        socket=path,
        log=labels["log"],
        boot_id=labels.get("boot", ""),
    )
    return labels["name"], record


def _sockets(endpoints_dir: Path) -> list[str]:
    """Sockets of the engines that were given a container of that folder, as far as they are there."""
    try:
        lines = (endpoints_dir / ENGINES).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [path for path in dict.fromkeys(lines) if os.path.exists(path)]


def _remember_socket(endpoints_dir: Path, path: str) -> None:
    """Write down that this engine is about to hold a container: who sweeps up has to know where to look."""
    if path not in _sockets(endpoints_dir):
        endpoints_dir.mkdir(parents=True, exist_ok=True)
        with (endpoints_dir / ENGINES).open("a", encoding="utf-8") as stream:
            stream.write(f"{path}\n")


def _run(launch: Launch, log: Path, order: Order, *, init: bool) -> ContainerRecord:
    """Create and start; nothing is left of a container that cannot be started."""
    config, path = order.config, engine.socket_path(order.config.docker.socket)
    name = f"{config.name}-{order.revision[:8]}-{secrets.token_hex(3)}"
    labels = {
        "owner": str(order.endpoints_dir),
        "name": config.name,
        "revision": order.revision,
        "version": importlib.metadata.version("prefect-finetune"),
        "log": str(log),
        "boot": process.boot_id(),
    }
    _remember_socket(order.endpoints_dir, path)
    with engine.connect(path, timeout_s=300) as client:
        created = client.create_container(
            launch.image,
            name=name,
            entrypoint=launch.command,
            environment=launch.env,
            labels={LABEL + key: value for key, value in labels.items()},
            ports=[launch.port] if order.place.own_network else None,
            host_config=client.create_host_config(**_host_config(client, launch, order), init=init),
            stop_timeout=GRACE_S,
        )
        record = ContainerRecord(id=created["Id"], name=name, socket=path, log=str(log), boot_id=labels["boot"])
        for warning in created.get("Warnings") or []:
            logger.warning("%s: %s", name, warning)
        try:
            client.start(record.id)
        except BaseException:
            with contextlib.suppress(Exception):
                _remove(client, record.id)
            raise
    return record


def _remove(client: APIClient, container: str) -> None:
    """Remove it, running or not; again while the engine is still at ending it (Podman: container state improper)."""
    from docker.errors import APIError

    def unfinished(error: BaseException) -> bool:
        return isinstance(error, APIError) and error.is_server_error()

    removal = Retrying(
        retry=retry_if_exception(unfinished), wait=wait_fixed(0.5), stop=stop_after_delay(5), reraise=True
    )
    removal(client.remove_container, container, v=True, force=True)


def _host_config(client: APIClient, launch: Launch, order: Order) -> dict[str, Any]:
    from docker.types import LogConfig
    from docker.types import Mount as Bind

    options, place = order.config.docker, order.place
    mounts = [Mount(str(place.model_dir), place.model_path), *launch.mounts, *_further_mounts(order.config)]
    for mount in launch.mounts:
        if mount.writable:
            Path(mount.source).mkdir(parents=True, exist_ok=True)
    memory = round(options.memory_gib * 2**30) or None
    return {
        "network_mode": options.network,
        "port_bindings": {launch.port: (process.HOST, place.port)} if place.own_network else None,
        "mounts": [Bind(m.target, m.source, type="bind", read_only=not m.writable) for m in mounts],
        "restart_policy": {"Name": "no"},  # who watches the endpoint restarts it
        "shm_size": round(options.shm_gib * 2**30),
        "mem_limit": memory,
        "memswap_limit": memory,
        "nano_cpus": round(options.cpus * 1e9) or None,
        "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": "64m", "max-file": "2"}),
    } | _gpus(client, options)


def _gpus(client: APIClient, options: DockerOptions) -> dict[str, Any]:
    """Docker takes a request, Podman (which ignores that) the names of the Container Device Interface."""
    from docker.types import DeviceRequest

    count = math.ceil(options.gpus)
    if not count:
        return {}
    if engine.is_podman(client):
        return {"devices": [f"nvidia.com/gpu={gpu}" for gpu in options.gpu_ids or range(count)]}
    which = {"device_ids": list(options.gpu_ids)} if options.gpu_ids else {"count": count}
    return {"device_requests": [DeviceRequest(driver="nvidia", capabilities=[["gpu"]], **which)]}


def _gpu_problems(config: ServeConfig) -> list[str]:
    gpus, field = config.docker.gpus, "serve.docker.gpus"
    count = math.ceil(gpus)
    found = []
    if gpus > 1 and gpus != count:
        found.append(f"{field}: {gpus:g} GPUs cannot be given: give a whole number, or less than 1 for a share of one.")
    if 0 < gpus < 1:
        share = SHARES.get(config.variant, "")
        if not share:
            found.append(
                f"{field}: an engine gives whole GPUs, and {config.variant} cannot keep to a share of one: give 1, or "
                "choose the variant vllm or sglang."
            )
        elif not 0 < getattr(config.options, share) <= gpus:
            found.append(
                f"{field}: an engine gives whole GPUs; for {gpus:g} of one set serve.{config.section}.{share} to at "
                f"most {gpus:g}, so that the server itself keeps to it."
            )
    if config.docker.gpu_ids and len(config.docker.gpu_ids) != count:
        found.append(f"serve.docker.gpu_ids: {len(config.docker.gpu_ids)} are named, {field} says {gpus:g}.")
    if (parallel := getattr(config.options, "tensor_parallel_size", 0)) > max(1, count):
        found.append(f"{field}: serve.{config.section}.tensor_parallel_size needs {parallel} GPUs, not {gpus:g}.")
    return found


def _further_mounts(config: ServeConfig) -> list[Mount]:
    parts = [mount.split(":") for mount in config.docker.mounts]
    return [Mount(source, target, writable=mode == ["rw"]) for source, target, *mode in parts]


def _state(record: ContainerRecord) -> dict[str, Any] | None:
    """What the engine says of it; None if it is gone."""
    try:
        with engine.connect(record.socket) as client:
            state: dict[str, Any] = client.inspect_container(record.id)["State"]
    except engine.MissingError:
        return None
    return state


def _end(client: APIClient, record: ContainerRecord, grace_s: float) -> None:
    """Ask it to end, and end it after `grace_s` seconds; one that cannot be asked (paused) is left to its removal."""
    from docker.errors import APIError

    with contextlib.suppress(APIError):
        client.stop(record.id, timeout=math.ceil(grace_s))


def _copy_log(client: APIClient, record: ContainerRecord, tail: int | Literal["all"]) -> None:
    with replaced(Path(record.log)) as written, written.open("wb") as output:
        for piece in client.logs(record.id, stream=True, follow=False, tail=tail):
            output.write(piece)
