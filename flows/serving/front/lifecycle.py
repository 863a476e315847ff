"""Start a front, find it again, restart it on the same port, stop it."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

from flows.errors import ServingError
from flows.serving.config import ServeConfig
from flows.serving.endpoint import ProcessRecord
from flows.serving.front import certificate, haproxy, runtime_api, traffic
from flows.serving.front import folder as files
from flows.serving.front.record import FrontRecord
from flows.serving.runtimes import process
from flows.serving.variants.launch import Launch

START_S = 10.0
HUNG_S = 1.0  # one that does not do what it is told gets no longer to end


def ensure(config: ServeConfig, endpoints_dir: Path) -> FrontRecord:
    """The front of the name with these options: found, started, or started again on the port it had.

    One that runs with other options is replaced: its running requests go on, and so do its shares and its tokens. A
    switch between open and token needs no new process.

    Raises:
        ServingError: HAProxy is missing or refuses to start, as on a port that is taken.
    """
    folder = files.place(endpoints_dir, config.name)
    with files.held(folder):
        kept = files.load(endpoints_dir, config.name)
        port = config.front.port or (kept.port if kept else 0) or process.choose_port(0)
        record = FrontRecord(name=config.name, folder=str(folder), port=port, options=config.front)
        _bring_up(record)
        return record


def revive(record: FrontRecord) -> bool:
    """Have the front run as its record says; whether it had to be started for that.

    Raises:
        ServingError: as for `ensure`.
    """
    with files.held(record.path):
        return _bring_up(record)


def stop(record: FrontRecord) -> bool:
    """Take no new requests, let running ones finish for up to `drain_s`, end it; whether anything ran.

    Its port and its tokens are kept for the next start.

    Raises:
        OSError: it has ended, but that could not be written down.
    """
    with contextlib.suppress(ServingError, OSError):  # it is dead already, or the store is not writable
        traffic.route(record, {})
        process.wait_until(lambda: not any(one.sessions for one in traffic.statistics(record).values()), _drain(record))
    with contextlib.ExitStack() as held:
        unlocked = _hold(held, record.path)
        running = files.running(record.path)
        ended = process.stop(running, 0) if running else []
        if unlocked:
            raise unlocked
        files.save_shares(record.path, {})
        files.save_running(record.path, None)
        return bool(ended)


def _hold(held: contextlib.ExitStack, folder: Path) -> OSError | None:
    """Take the right to change the front; why that is not possible, as on a store that is not writable."""
    try:
        held.enter_context(files.held(folder))
    except OSError as error:
        return error
    return None


def _drain(record: FrontRecord) -> float:
    return float(record.options.drain_s)


def _bring_up(record: FrontRecord) -> bool:
    """Whether a process was started; what ran and was recorded before stays if that fails."""
    folder, kept = record.path, files.read(record.path)
    running = files.running(folder)
    if running and not files.alive(record):
        process.stop(running, 0, HUNG_S)
        running = None
    if running and (folder / haproxy.CONFIG).read_text() == haproxy.config_text(record):
        runtime_api.order(folder, f"set map {haproxy.ACCESS} mode {record.options.access}")
        certificate.renew(record)
        if kept != record:
            _write(record)
        return False
    _write(record)
    try:
        _start(record, running)
    except ServingError:
        if kept:
            _write(kept)
        else:
            files.forget(folder)
        raise
    certificate.remember(record)
    return True


def _write(record: FrontRecord) -> None:
    """Write down what it is and all that HAProxy reads when it starts, but the tokens."""
    folder = record.path
    files.save(record)
    haproxy.write_private(folder / haproxy.ACCESS, haproxy.access_text(record))
    haproxy.write_errors(folder)
    (folder / haproxy.CONFIG).write_text(haproxy.config_text(record))
    (folder / haproxy.SERVERS).write_text(haproxy.servers_text(files.shares(folder)))
    (folder / haproxy.TOKENS).touch(0o600)


def _start(record: FrontRecord, replaced: ProcessRecord | None) -> None:
    """Start it and wait until it does what it is told; what it replaces finishes its requests and ends."""
    folder = record.path
    words = haproxy.command(folder, replaced.pid if replaced else 0)
    name = f"{record.name}{files.LOG_SUFFIX}-{datetime.now(UTC):%Y%m%dT%H%M%S-%f}.log"
    launch = Launch(command=words, env={}, model="", ready_path="")
    started = process.start(launch, folder.parent.parent / "logs" / name)
    files.save_running(folder, started)
    process.wait_until(lambda: not process.alive(started) or _answers(folder, started.pid), START_S)
    if not process.alive(started) or not _answers(folder, started.pid):
        process.stop(started, 0)
        files.save_running(folder, replaced)
        raise ServingError(_refused(record, started))
    if replaced:
        process.wait_until(lambda: not process.alive(replaced), _drain(record))
        process.stop(replaced, 0)


def _answers(folder: Path, pid: int) -> bool:
    try:
        return f"Pid: {pid}\n" in runtime_api.ask(folder, "show info")
    except ServingError:
        return False


def _refused(record: FrontRecord, started: ProcessRecord) -> str:
    what = f"The front of {record.name} did not start on {record.options.host}:{record.port}."
    if process.port_served(record.port):
        return (
            f"{what} It is taken by {process.port_owner(record.port)}. Stop that process, choose another "
            f"serve.front.port, or give 0 for a free one.\nLog: {started.log}"
        )
    said = [line for line in process.logs(started, 20) if "ALERT" in line]
    return f"{what} HAProxy said: {' '.join(said) or 'nothing'}\nLog: {started.log}"
