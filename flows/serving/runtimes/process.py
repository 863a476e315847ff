"""Runtime `process`: a detached process of this machine, found again by pid, start time and boot (Linux)."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from flows.errors import ServingError
from flows.serving.causes import last_lines
from flows.serving.endpoint import ProcessRecord
from flows.serving.secret_names import inherited
from flows.serving.variants.launch import Launch, Order, Place

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

CONTAINER = False
HOST = "127.0.0.1"
# Below the range from which the kernel takes ports for outgoing connections: a server binds only after it has loaded
# its model, minutes later, and by then such a connection could sit on the port.
FREE_PORTS = range(18000, 32000)
# A process whose first thread has ended has no exit code before its other threads are gone too.
LAST_THREAD_S = 10.0
LOG_NAME = re.compile(r"(.+)-\d{8}T\d{6}-\d{6}\.log$")

# Children of this interpreter: they must be waited for (or they stay zombies), and only we can read their exit code.
_children: dict[int, subprocess.Popen[bytes]] = {}


def problems(config: ServeConfig) -> list[str]:
    """Nothing but the variant's own; what needs an image says so itself."""
    return []


def place(model_dir: Path, port: int, config: ServeConfig | None = None) -> Place:
    """On this machine, reachable from this machine."""
    return Place(model_dir, str(model_dir), HOST, port)


def start(launch: Launch, log: Path, order: Order | None = None) -> ProcessRecord:
    """Start detached, in a session of its own, output to `log`.

    Raises:
        ServingError: there is no command, or it cannot be started.
    """
    if not launch.command:
        raise ServingError(
            f"There is no command to run, only an image ({launch.image}): that needs serve.runtime docker."
        )
    log.parent.mkdir(parents=True, exist_ok=True)
    env = inherited() | launch.env
    with log.open("ab") as output:
        try:
            child = subprocess.Popen(
                launch.command,
                env=env,
                cwd=log.parent,  # `python -m` looks for modules in the working folder first: not the caller's
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except ValueError as error:  # a zero byte, which YAML's "\0" makes
            raise ServingError(f"Cannot start {launch.command[0]}: {error} in its command line.") from error
        except OSError as error:
            remedy = "Is it installed?" if error.errno == errno.ENOENT else "Look at the path and the words."
            raise ServingError(f"Cannot start {launch.command[0]}: {error.strerror}. {remedy}") from error
    _children[child.pid] = child
    # Unreaped, the child keeps its entry in /proc even if it has ended by now.
    return ProcessRecord(pid=child.pid, start_ticks=_stat(child.pid)[2], boot_id=boot_id(), log=str(log))


def url(record: ProcessRecord, port: int) -> str:
    """At its port on this machine."""
    return f"http://{HOST}:{port}/v1"


def headers(record: ProcessRecord) -> dict[str, str]:
    """A server of this machine needs none."""
    return {}


def tls(record: ProcessRecord) -> None:
    """It is asked without."""


def alive(record: ProcessRecord) -> bool:
    """Whether that very process runs: not a zombie, not a later process with the same pid, not another boot."""
    exit_code(record)
    try:
        start_ticks = _stat(record.pid)[2]
    except ProcessLookupError:
        return False
    return not _ended(record.pid) and start_ticks == record.start_ticks and boot_id() == record.boot_id


def rebooted(record: ProcessRecord) -> bool:
    """Whether the machine was started again since the record was made."""
    return boot_id() != record.boot_id


def exit_code(record: ProcessRecord) -> int | None:
    """Exit code (minus the signal's number when killed), reaping the process; None if it runs or is not our child."""
    child = _children.get(record.pid)
    if child and child.poll() is None and _ended(record.pid):
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(LAST_THREAD_S)
    return child.returncode if child else None


def logs(record: ProcessRecord, count: int) -> list[str]:
    """The last lines of its output."""
    return last_lines(Path(record.log), count)


def list_owned(endpoints_dir: Path) -> list[tuple[str, ProcessRecord]]:
    """What runs and writes to a log of that folder: the endpoint's name and the session, a line each."""
    folder = endpoints_dir.resolve() / "logs"
    found = {}
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            log = Path(os.readlink(f"/proc/{entry}/fd/1"))
            if log.parent == folder and (match := LOG_NAME.match(log.name)):
                session = _stat(int(entry))[1]
                with contextlib.suppress(ProcessLookupError):
                    found[session] = match[1], _stat(session)[2], str(log)
                found.setdefault(session, (match[1], 0, str(log)))  # its leader is gone, its workers are not
    return [
        (name, ProcessRecord(pid=session, start_ticks=ticks, boot_id=boot_id(), log=log))
        for session, (name, ticks, log) in sorted(found.items())
    ]


def stop(record: ProcessRecord, port: int, grace_s: float = 10) -> list[int]:
    """TERM the process, wait, KILL what is left of it, then check that nothing of it is left.

    Workers whose leader is gone have nobody to end them in order, so they are killed at once. One that has left the
    session is not ended by the leader either, so it gets a TERM of its own.

    Returns:
        The pids that were ended; empty if nothing ran any more.

    Raises:
        ServingError: something survived, or the port is still served.
    """
    ended = members(record)
    if not ended:
        return []
    led = alive(record)
    for pid in [pid for pid in ended if pid == record.pid or _session(pid) != record.pid] if led else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    if not wait_until(lambda: not members(record), grace_s if led else 0):
        for pid in members(record):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if not wait_until(lambda: not members(record), 10):
        raise ServingError(f"These processes survive SIGKILL: {members(record)}. Look at their state with `ps`.")
    if not wait_until(lambda: not port_served(port), 5):
        raise ServingError(f"The server has ended, but port {port} still answers: {port_owner(port)}.")
    return ended


def members(record: ProcessRecord) -> list[int]:
    """Pids of the running processes of the record's session, and of what left it and writes to its log; leader first.

    Workers can outlive a killed leader. The kernel may then give the session's number to a stranger, so without its
    leader a process counts only if its output goes to our log.
    """
    if boot_id() != record.boot_id:
        return []
    led = alive(record)
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(ProcessLookupError):
            state, session, _ = _stat(int(entry))
            ours = (led and session == record.pid) or _writes_to(int(entry), record.log)
            if ours and state not in "ZX":
                found.append(int(entry))
    return sorted(found, key=lambda pid: (pid != record.pid, pid))


def choose_port(wanted: int) -> int:
    """The wanted port if it is free, or a free one for 0.

    Raises:
        ServingError: the wanted port is taken (says by whom), or no port is free.
    """
    if wanted and _bindable(wanted):
        return wanted
    if wanted:
        raise ServingError(
            f"port: {wanted} on {HOST} is taken by {port_owner(wanted)}. Stop that process, choose another port, "
            "or give 0 for a free one."
        )
    for port in random.sample(FREE_PORTS, len(FREE_PORTS)):
        if _bindable(port):
            return port
    raise ServingError(f"No port from {FREE_PORTS.start} to {FREE_PORTS.stop - 1} is free on {HOST}.")


def port_owner(port: int) -> str:
    """Who listens on a port, in words."""
    try:
        pids = {c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.pid}
        owners = [f"process {pid} ({_program(psutil.Process(pid))})" for pid in sorted(pids)]
    except psutil.Error:
        owners = []
    return ", ".join(owners) or "a process that this user may not see"


def _program(process: psutil.Process) -> str:
    """What runs, without its arguments, which may hold a password: the program's name, of Python's the module's too."""
    words = process.cmdline() or [process.name()]
    name = os.path.basename(words[0].split(" ")[0]) or process.name()
    if name.startswith("python") and "-m" in words[1:-1]:
        before, module = words[1 : words.index("-m")], words[words.index("-m") + 1]
        if all(word.startswith("-") and word != "-c" for word in before):
            return f"{name} -m {module}"
    return name


def port_served(port: int) -> bool:
    """Whether somebody accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise ServingError(f"port: {port} on {HOST} cannot be used: {error.strerror}. Choose another.") from error
    return True


def _ended(pid: int) -> bool:
    """Whether it is a zombie or gone."""
    try:
        return _stat(pid)[0] in "ZX"
    except ProcessLookupError:
        return True


def _stat(pid: int) -> tuple[str, int, int]:
    """State letter, session and start time (ticks since boot) of a process; ProcessLookupError if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessLookupError(pid) from error
    fields = text.rpartition(")")[2].split()  # the name before the bracket may hold anything
    return fields[0], int(fields[3]), int(fields[19])


def _session(pid: int) -> int:
    """Its session; 0 if it is gone."""
    try:
        return _stat(pid)[1]
    except ProcessLookupError:
        return 0


def _writes_to(pid: int, log: str) -> bool:
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samefile(f"/proc/{pid}/fd/{descriptor}", log):
                return True
    return False


def boot_id() -> str:
    """The kernel's name for the time since the machine was started."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def wait_until(done: Callable[[], bool], seconds: float, poll_s: float = 0.05) -> bool:
    """Whether `done` comes true within `seconds`."""
    until = time.monotonic() + seconds
    while not (ready := done()) and time.monotonic() < until:
        time.sleep(poll_s)
    return ready
