"""What a stage needs to run, and where: the fields that a person fills in, and what is wrong with them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from pydantic import Field

from flows.config import Config
from flows.gpus.inventory import PRETENDED, gpus
from flows.gpus.leases import leased_here
from flows.gpus.leases import problems as lease_problems

SIZE = r"^$|^[0-9]{1,12}(\.[0-9]{1,12})?\s*([kKmMgGtT]i?[bB]?)$"
UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*=.*$"
SECRET = "secret:"
NO_NAME = "/%&<>"  # what Prefect allows in no name
LONGEST = 100_000  # bytes of a variable or a command: Linux takes 128 KiB
SIZES = "With a unit: 16g, 16GiB, 512m; a thousand is 1024. Empty: as much as there is."


class StageResources(Config):
    """Where a stage runs and what it may use there."""

    work_pool: str = Field(
        default="",
        title="Work pool",
        description="Its deployment run-stage/<pool> runs the stage (make deploy makes one a pool). "
        "Empty: in the run itself, on its machine.",
    )
    cpu: float = Field(default=0, ge=0, title="CPU cores", description="0: what the pool gives.")
    memory: str = Field(default="", pattern=SIZE, title="Memory", description=SIZES)
    gpus: float = Field(
        default=0,
        ge=0,
        title="GPUs",
        description="Whole cards (2), or a share of one (0.5); leased on a process pool, else asked of the engine. "
        "0: none is leased; the stage sees what its process sees.",
    )
    gpu_memory: str = Field(
        default="", pattern=SIZE, title="Memory of each GPU, or of the share of one", description=SIZES
    )
    processes: int = Field(
        default=0,
        ge=0,
        le=1024,
        title="Processes on a machine",
        description="Of a training, by torchrun: each takes its share of every batch, so that the result stays what "
        "one process would make. 0: one for each whole GPU asked for, else one.",
    )
    nodes: int = Field(
        default=1,
        ge=1,
        le=1024,
        title="Machines",
        description="Of a training, in the Ray cluster that RAY_ADDRESS of the environment names. GPUs, cores and "
        "processes are those of each machine.",
    )
    shm: str = Field(default="", pattern=SIZE, title="Shared memory", description=f"/dev/shm of a container. {SIZES}")
    image: str = Field(default="", title="Image", description="Of a container pool. Empty: the image of the pool.")
    env: list[str] = Field(
        default=[],
        title="Environment",
        description="NAME=value for the stage's process; NAME=secret:block takes the value of that Secret block.",
    )


class Resources(Config):
    """What each stage needs, and where it runs."""

    prepare: StageResources = Field(
        default=StageResources(), title="Prepare", description="Seconds without a GPU: best in the run itself."
    )
    pretrain: StageResources = Field(default=StageResources(), title="Pretrain", description="Training on the texts.")
    finetune: StageResources = Field(
        default=StageResources(), title="Finetune", description="Training on the questions, each variant on its own."
    )
    evaluate: StageResources = Field(
        default=StageResources(), title="Evaluate", description="Replies of both models, and their scores."
    )

    def stages(self) -> Iterator[tuple[str, StageResources]]:
        """Each stage's name with its resources."""
        for name in type(self).model_fields:
            yield name, getattr(self, name)


def size_bytes(words: str) -> int:
    """Bytes of a size like `16g`, `16GiB` or `512m`; 0 for an empty one."""
    if not words:
        return 0
    number, unit = re.fullmatch(r"([0-9.]+)\s*([a-zA-Z]+)", words.strip()).groups()  # type: ignore[union-attr]
    return int(float(number) * UNITS[unit[0].lower()])


def size_gib(words: str) -> float:
    """GiB of a size; 0 for an empty one."""
    return size_bytes(words) / 2**30


def problems(wanted: StageResources, where: str) -> list[str]:
    """What cannot work anywhere, a line each; `where` is the field's path."""
    found = []
    if wrong := sorted(set(wanted.work_pool) & set(NO_NAME)):
        found.append(
            f"{where}.work_pool: '{wanted.work_pool[:200]}' names no work pool: no name has {wrong[0]!r} in it."
        )
    if wanted.gpus > 1 and wanted.gpus != int(wanted.gpus):
        found.append(f"{where}.gpus: {wanted.gpus:g} is neither a share of one card (below 1) nor whole ones.")
    for field in ("memory", "gpu_memory", "shm"):
        if (words := getattr(wanted, field)) and not size_bytes(words):
            found.append(f"{where}.{field}: {words} is nothing; leave it empty for as much as there is.")
    if wanted.gpu_memory and not wanted.gpus:
        found.append(f"{where}.gpu_memory: {wanted.gpu_memory} of no GPU; say in gpus how many.")
    if wanted.nodes > 1 and 0 < wanted.gpus < 1:
        found.append(f"{where}.gpus: {wanted.gpus:g} of a card on each of {wanted.nodes} machines; take whole cards.")
    if wanted.image and not wanted.work_pool:
        found.append(f"{where}.image: only a work pool of containers can use an image; name one in work_pool.")
    names: set[str] = set()
    for line in wanted.env:
        name = line.partition("=")[0]
        if not re.match(VARIABLE, line, re.DOTALL):
            found.append(f"{where}.env: {line!r} is not NAME=value.")
        elif not passable(line):
            found.append(f"{where}.env: {name[:100]} has a zero byte, or more than {LONGEST:,} bytes.")
        elif name in names:
            found.append(f"{where}.env: {name} stands there twice.")
        names.add(name)
    return found


def passable(text: str) -> bool:
    """Whether a process can be started with it, as a variable or as an argument."""
    return "\0" not in text and len(text.encode("utf-8", "replace")) <= LONGEST


def machine_problems(wanted: StageResources, where: str) -> list[str]:
    """What this machine cannot give to a stage that runs on it as a process, a line each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = []
    if wanted.cpu > (cores := os.cpu_count() or 1):
        found.append(f"{where}.cpu: {wanted.cpu:g} cores asked for, this machine has {cores}.")
    if size_bytes(wanted.memory) > memory:
        there = f"this machine has {memory / 2**30:.1f} GiB"
        found.append(f"{where}.memory: {wanted.memory} asked for, {there}.")
    return found


def leases_cards(wanted: StageResources) -> bool:
    """Whether its GPUs are leased on the machine that it runs on; an engine or a cluster gives them itself."""
    return wanted.gpus > 0 and leased_here() and wanted.nodes == 1


def card_problems(wanted: StageResources, where: str) -> list[str]:
    """What can never be leased of this machine's cards, a line each."""
    if not leases_cards(wanted):
        return []
    return [f"{where}.{line}" for line in lease_problems(wanted.gpus, size_gib(wanted.gpu_memory), gpus())]


def processes(wanted: StageResources) -> int:
    """Processes on each machine: as asked for, else one a whole card; pretended cards are none to train on."""
    cards = 0 if os.environ.get(PRETENDED) else int(wanted.gpus)
    return wanted.processes or max(1, cards)


def secret_blocks(lines: Iterable[str]) -> dict[str, str]:
    """Variable -> name of the Secret block that holds its value."""
    pairs = (line.partition("=") for line in lines)
    return {name: value.removeprefix(SECRET) for name, _, value in pairs if value.startswith(SECRET)}


def plain_variables(lines: Iterable[str]) -> dict[str, str]:
    """Variable -> value, of those that are no secrets."""
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, _, value in pairs if not value.startswith(SECRET)}
