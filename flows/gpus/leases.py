"""Leases of this machine's GPUs, whole or in hundredths: locks of the kernel, which frees them when the holder dies.

Every card is a file of a hundred bytes, and a lease holds write locks on as many of them. They are locks of an open
file (fcntl(2), "open file description locks"): a process that was started with the lease's descriptors holds it too,
so that a card is free only when all that used it are gone. Prefect's own concurrency limits would not do: their leases
are held in the server's memory, live a minute past a killed holder, and are lost when the server restarts.

A file can be removed while it is locked, and the next one would lock a new file. So every lease also has a name in the
kernel for each card (`names`), which nobody can remove, and a card is free when neither its file nor a name says
otherwise.

Who waits longest is served first, so that many small requests cannot starve a big one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from flows.errors import ConfigError
from flows.gpus import names
from flows.gpus.inventory import PRETENDED, Gpu, gpus

FOLDER = "FINETUNE_LEASES"
NOT_HERE = "off"
# Of the machine, not of a user or a store: cards are shared by all. Nothing cleans the first by age; it is not
# everywhere a folder in which all may write.
PLACES = ("/run/lock", "/var/tmp")
DEFAULT_FOLDER = "prefect-finetune-gpus"
PARTS = 100
POLL_S = 1.0
TOUCH_S = 3600.0  # between signs of life for what cleans by age, in days


@dataclass(frozen=True)
class Lease:
    """Cards that are held: their indices, the share of each (1: all of it), and the descriptors that hold them."""

    devices: tuple[int, ...]
    share: float
    descriptors: tuple[int, ...]

    @property
    def environment(self) -> dict[str, str]:
        """What a process that may use the cards, and no others, is started with."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.devices))}


@dataclass(frozen=True)
class Place:
    """A living place in the queue: for whom, what it wants (a share, or whole cards), and the cards it has, if any."""

    name: str
    holder: str
    wanted: float
    devices: tuple[int, ...]

    @property
    def words(self) -> str:
        """What it has, or waits for."""
        if not self.devices:
            return f"{self.holder} waits for {_number(self.wanted)} before it"
        which = ", ".join(map(str, self.devices))
        return f"{self.holder} holds {f'{self.wanted:g} of ' if self.wanted < 1 else ''}GPU {which}"


def problems(wanted: float, memory_gib: float, cards: Sequence[Gpu]) -> list[str]:
    """What can never be leased of these cards, in words."""
    if wanted > 1 and wanted != int(wanted):
        return [f"gpus: {wanted:g} is neither a share of one card (below 1) nor whole ones."]
    if wanted < 1 and abs(round(wanted * PARTS) - wanted * PARTS) > 1e-6:
        return [f"gpus: a card is shared in hundredths, {wanted:g} is finer."]
    there = f"this machine has {len(cards) or 'none'}"
    if wanted > len(cards):
        hint = "" if cards else f" (nvidia-smi shows no card; {PRETENDED} can name some for a trial)"
        return [f"gpus: {wanted:g} asked for, {there}{hint}. Name a work pool whose machines have them."]
    enough = [card for card in cards if not card.memory_gib or card.memory_gib * min(wanted, 1) >= memory_gib]
    if len(enough) < max(1, wanted):
        if enough:
            return [f"gpu_memory: {memory_gib:g} GiB asked for on {wanted:g} cards, {len(enough)} here has that."]
        most = max(card.memory_gib for card in cards)
        part = f" and {wanted:g} of that is asked for" if wanted < 1 else ""
        return [f"gpu_memory: {memory_gib:g} GiB asked for, the biggest card here has {most:g} GiB{part}."]
    return []


@contextmanager
def lease(
    wanted: float,
    holder: str,
    waiting: Callable[[str], None],
    memory_gib: float = 0.0,
    poll_s: float = POLL_S,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Lease]:
    """Hold so many cards of this machine, or that share of one, as long as the block runs.

    Args:
        wanted: whole cards (2), or a share of one (0.5).
        holder: who it is for, in words; shown to those who wait.
        waiting: called with what is waited for whenever that changes, in words.
        memory_gib: memory that the share of each card must have, in GiB.
        poll_s: seconds between looks.
        pause: waits so many seconds; what it raises ends the waiting.

    Raises:
        ConfigError: this machine can never give that.
    """
    cards = gpus()
    if found := problems(wanted, memory_gib, cards):
        raise ConfigError(found)
    fitting = [card.index for card in cards if not card.memory_gib or card.memory_gib * min(wanted, 1) >= memory_gib]
    folder = _folder()
    with _Ticket(folder, holder, wanted) as ticket, ExitStack() as held:
        told = ""
        while (got := _take(folder, fitting, wanted, ticket)) is None:
            if (why := _why_waiting(folder, ticket, wanted)) != told:
                waiting(why)
                told = why
            pause(poll_s)
        for descriptor in got.descriptors:
            held.callback(os.close, descriptor)
        with _touching([ticket.descriptor, *got.descriptors]):
            yield got


def leased_here() -> bool:
    """Whether cards are leased on this machine; FINETUNE_LEASES=off says that an engine has given them out already."""
    return os.environ.get(FOLDER) != NOT_HERE


def holders() -> list[Place]:
    """Who holds cards at the moment, the oldest first."""
    folder = _folder()
    with _deciding(folder):
        return [one for one in _living(folder) if one.devices]


def _folder() -> Path:
    folder = Path(os.environ.get(FOLDER) or _default_folder(PLACES))
    _make(folder)
    return folder


def _default_folder(places: Sequence[str]) -> Path:
    """In the first place in which every user of the machine may write, so that all come to the same one."""
    for place in places[:-1]:
        with contextlib.suppress(OSError):
            mode = os.stat(place).st_mode
            if stat.S_ISDIR(mode) and mode & 0o1777 == 0o1777:
                return Path(place) / DEFAULT_FOLDER
    return Path(places[-1]) / DEFAULT_FOLDER


def _make(folder: Path) -> None:
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        folder.mkdir(parents=True)
        folder.chmod(0o1777)  # of nothing, when it is removed at this moment


@contextmanager
def _touching(descriptors: Sequence[int]) -> Iterator[None]:
    """While this lasts, files in use are never old."""
    ended = Event()

    def touch() -> None:
        while not ended.wait(TOUCH_S):
            for descriptor in descriptors:
                with contextlib.suppress(OSError):  # of a name
                    os.utime(descriptor)

    thread = Thread(target=touch, name="touching leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _take(folder: Path, fitting: list[int], wanted: float, ticket: _Ticket) -> Lease | None:
    """The lease, if it is this ticket's turn and the cards are free."""
    with _deciding(folder):
        ticket.stand()
        first = next((one.name for one in _living(folder) if not one.devices), None)
        if first != ticket.name:
            return None
        whole = wanted >= 1
        got = _whole(folder, fitting, int(wanted)) if whole else _part(folder, fitting, round(wanted * PARTS))
        if got is not None:
            ticket.write(got.devices)
        return got


def _whole(folder: Path, fitting: list[int], count: int) -> Lease | None:
    room = _room(folder, fitting)
    free = [index for index in fitting if len(room[index]) == PARTS][:count]
    return _held(folder, {index: range(PARTS) for index in free}, 1.0) if len(free) == count else None


def _part(folder: Path, fitting: list[int], parts: int) -> Lease | None:
    """On the fullest card that has room, so that whole ones stay free."""
    room = _room(folder, fitting)
    enough = sorted((index for index in fitting if len(room[index]) >= parts), key=lambda index: len(room[index]))
    for index in enough:
        if got := _held(folder, {index: room[index][:parts]}, parts / PARTS):
            return got
    return None


def _room(folder: Path, fitting: list[int]) -> dict[int, list[int]]:
    """Card -> its free hundredths, by the locks of its file and by the names of leases whose file was removed."""
    taken = names.taken(folder)
    return {index: [part for part in _free(folder, index) if part not in taken.get(index, ())] for index in fitting}


def _free(folder: Path, index: int) -> list[int]:
    descriptor = _open(folder / f"gpu-{index}")
    try:
        return [byte for byte in range(PARTS) if _lock(descriptor, byte, 1)]
    finally:
        os.close(descriptor)


def _held(folder: Path, wanted: dict[int, Sequence[int]], share: float) -> Lease | None:
    """Lease these hundredths of cards, all of them or none."""
    with ExitStack() as undo:
        descriptors = []
        for index, parts in wanted.items():
            descriptors.append(_open(folder / f"gpu-{index}"))
            undo.callback(os.close, descriptors[-1])
            if not all(_lock(descriptors[-1], part, 1) for part in parts):
                return None
            descriptors.append(names.give(folder, index, parts))
            undo.callback(os.close, descriptors[-1])
        undo.pop_all()
        return Lease(tuple(wanted), share, tuple(descriptors))


def _open(path: Path) -> int:
    """A descriptor of its own for each lease: the lock belongs to it. Not inherited unless it is passed on.

    Made only where it is missing: in a sticky folder the kernel refuses O_CREAT on a file of another user
    (proc_sys_fs(5), "protected_regular"). The folder may have been removed too.
    """
    while True:
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        _make(path.parent)
        before = os.umask(0)
        try:
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o666)
        finally:
            os.umask(before)


def _lock(descriptor: int, first: int, count: int) -> bool:
    """Lock so many bytes of an open file; whether nobody else has any of them."""
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, first, count, 0)  # struct flock of fcntl(2)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
    except (BlockingIOError, PermissionError):
        return False
    return True


@contextmanager
def _deciding(folder: Path) -> Iterator[None]:
    """One at a time looks and takes."""
    descriptor = _open(folder / "deciding")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with names.alone(folder):  # the file may be removed
            yield
    finally:
        os.close(descriptor)


class _Ticket:
    """A place in the queue, and later the word of who holds what: a file that counts while its holder lives."""

    def __init__(self, folder: Path, holder: str, wanted: float) -> None:
        self.folder, self.holder, self.wanted = folder, holder, wanted
        self.name = f"ticket-{time.time_ns():020d}-{os.getpid()}-{id(self)}"

    def __enter__(self) -> _Ticket:
        with _deciding(self.folder):
            self._begin()
        return self

    def _begin(self) -> None:
        self.descriptor = _open(self.folder / self.name)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        self.write(())

    def stand(self) -> None:
        """Take the same place in the queue again if its file was removed."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self.folder / self.name), os.fstat(self.descriptor)):
                return
        os.close(self.descriptor)
        self._begin()

    def write(self, devices: tuple[int, ...]) -> None:
        words = json.dumps({"holder": self.holder, "wanted": self.wanted, "devices": devices}).encode()
        os.pwrite(self.descriptor, words, 0)
        os.ftruncate(self.descriptor, len(words))

    def __exit__(self, *_: object) -> None:
        with _deciding(self.folder), contextlib.suppress(FileNotFoundError):
            (self.folder / self.name).unlink()
        os.close(self.descriptor)


def _living(folder: Path) -> list[Place]:
    """The places whose holders live, the oldest first; those of the dead are removed."""
    found = []
    tickets: list[Path] = []
    with contextlib.suppress(FileNotFoundError):  # the folder is removed at this moment
        tickets = sorted(folder / name for name in os.listdir(folder) if name.startswith("ticket-"))
    for path in tickets:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = json.loads(os.pread(descriptor, 100_000, 0))
            found.append(Place(path.name, told["holder"], told["wanted"], tuple(told["devices"])))
        else:
            with contextlib.suppress(FileNotFoundError, PermissionError):  # of another user: left to that one
                path.unlink()
        finally:
            os.close(descriptor)
    return found


def _why_waiting(folder: Path, ticket: _Ticket, wanted: float) -> str:
    with _deciding(folder):
        others = [one for one in _living(folder) if one.devices or one.name < ticket.name]
        unknown = sorted(set(names.taken(folder)) - {index for one in others for index in one.devices})
    words = [one.words for one in others]
    if unknown:
        which = ", ".join(map(str, unknown))
        words.append(f"GPU {which} is still used (the holder was killed, or its file in {folder} removed)")
    return f"Waiting for {_number(wanted)}: {'; '.join(words) or 'they have just been freed'}."


def _number(wanted: float) -> str:
    return f"{wanted:g} of a GPU" if wanted < 1 else f"{wanted:g} GPU{'s' if wanted > 1 else ''}"
