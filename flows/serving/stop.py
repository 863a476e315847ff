"""Stop an endpoint: its process and everything that process started, or its container."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.errors import ServingError
from flows.serving import records
from flows.serving.endpoint import Endpoint, ProcessRecord
from flows.serving.front import folder as fronts
from flows.serving.front import following, lifecycle, traffic
from flows.serving.front.record import FrontRecord
from flows.serving.registry import RUNTIMES
from flows.serving.runtimes import process
from flows.serving.state import State

LOCK_WAIT_S = 2.0

logger = logging.getLogger(__name__)


def stop_endpoint(name: str, endpoints_dir: Path) -> Endpoint | None:
    """Stop `name`, and what is being started or was replaced under that name; stopping twice is no error.

    Returns:
        The endpoint, STOPPED, with `why` saying what was ended; None if there is no such endpoint.

    Raises:
        ServingError: a process could not be ended, or its port still answers, and the record is kept; or all is ended,
            but that could not be written down, as on a full disk.
    """
    if not set(records.names(endpoints_dir)) & {name, name + records.NEXT, name + records.PREVIOUS}:
        return None
    unwritten: list[OSError] = []
    # The watcher starts a failed server again within this time. A start that takes longer is ended under its hands.
    with contextlib.ExitStack() as held:
        with _noted([]):  # the right to it is nothing without which a server could not be ended
            held.enter_context(records.starting(endpoints_dir, name, wait_s=LOCK_WAIT_S))
        with _noted([]):
            records.mark_stopped(endpoints_dir, name)
        stopped = _stop(name, endpoints_dir, unwritten)
    if unwritten:
        raise ServingError(
            f"{name}: {stopped.why if stopped else 'Ended.'} But that could not be written below {endpoints_dir} "
            f"({unwritten[-1]}), so its record says otherwise. Make the store writable and stop it again."
        )
    return stopped


@contextlib.contextmanager
def _noted(unwritten: list[OSError]) -> Iterator[None]:
    """Go on when something cannot be written: what runs is ended all the same."""
    try:
        yield
    except OSError as error:
        logger.error("While stopping: %s", error)
        unwritten.append(error)


def _stop(name: str, endpoints_dir: Path, unwritten: list[OSError]) -> Endpoint | None:
    serving, cleared, replicas = records.load(endpoints_dir, name), None, 0
    with _noted(unwritten):
        cleared = end_leftovers(name, endpoints_dir, serving=serving)
    if serving is None:
        with _noted(unwritten):
            end_replicas(name, endpoints_dir)
        return cleared
    if serving.state is not State.STOPPED:  # said first, so that nobody takes the end that follows for a failure
        with _noted(unwritten):
            records.save(endpoints_dir, serving.model_copy(update={"state": State.DRAINING, "why": ""}))
    if front := fronts.load(endpoints_dir, name):
        with _noted(unwritten):
            lifecycle.stop(front)
    with _noted(unwritten):
        replicas = end_replicas(name, endpoints_dir)
    ended = end(serving)
    if serving.state is State.STOPPED and not ended:
        return serving
    if not ended:
        _check_port(serving, endpoints_dir)
    stopped = serving.model_copy(update={"state": State.STOPPED, "why": _told(serving, ended, replicas)})
    with _noted(unwritten):
        records.save(endpoints_dir, stopped)
    return stopped


def _check_port(gone: Endpoint, endpoints_dir: Path) -> None:
    """Look whether something that nobody can tell for its own still answers at its port.

    Raises:
        ServingError: something does, and it is no other endpoint of this folder.
    """
    if not isinstance(gone.process, ProcessRecord) or process.rebooted(gone.process):
        return
    names = [name for name in records.names(endpoints_dir) if name != gone.name]
    others = {one.port for name in names if (one := records.readable(endpoints_dir, name))}
    if gone.port not in others and process.port_served(gone.port):
        raise ServingError(
            f"The {gone.process.words} of {gone.name} had ended before, but port {gone.port} still answers: "
            f"{process.port_owner(gone.port)}. If that belongs to it, end it and stop {gone.name} again; else delete "
            f"{endpoints_dir / gone.name}.json."
        )


def _told(serving: Endpoint, ended: Sequence[int | str], replicas: int) -> str:
    """What was ended, as a sentence."""
    if serving.runtime == "external":
        return f"Forgot it. Nothing was ended: the {serving.process.words} is somebody else's and goes on."
    own = f"Ended {_words(ended, serving)}"
    own = own if ended else f"Its {serving.process.words.split()[0]} had ended before"
    return f"{own}{f', and {replicas} replicas' if replicas else ''}."


def end(endpoint: Endpoint) -> Sequence[int | str]:
    """End what the endpoint runs as, whatever its record says; the pids, or the container's name, that were ended."""
    return RUNTIMES[endpoint.runtime].stop(endpoint.process, endpoint.port)


def end_behind(front: FrontRecord | None, endpoint: Endpoint, longest_s: float = math.inf) -> Sequence[int | str]:
    """`end`, after the requests that the front has sent there are answered, or its `drain_s` or `longest_s` is over."""
    if front:
        traffic.wait_drained(front, following.address(endpoint), longest_s)
    return end(endpoint)


def end_leftovers(
    name: str, endpoints_dir: Path, *, serving: Endpoint | None, longest_drain_s: float = math.inf
) -> Endpoint | None:
    """End and forget what a killed start left beside `serving`; the last of it, STOPPED, or None.

    Requests that a front has sent there get its `drain_s` to finish, or `longest_drain_s` if that is less.
    """
    cleared = None
    found = [records.load(endpoints_dir, name + suffix) for suffix in (records.NEXT, records.PREVIOUS)]
    front = following.settle(name, endpoints_dir, serving, past_candidate=True) if any(found) else None
    left = list(filter(None, found))
    for leftover in left:
        # Killed between two writes, both records name the process that serves now: that one is kept.
        kept = serving is not None and leftover.process == serving.process
        ended = [] if kept else end_behind(front, leftover, longest_drain_s)
        cleared = leftover.model_copy(update={"state": State.STOPPED, "why": f"Ended {_words(ended, leftover)}."})
    for leftover in left:  # when all are ended, since that may fail
        records.delete(endpoints_dir, leftover.name)
    return cleared


def end_replicas(name: str, endpoints_dir: Path) -> int:
    """End and forget the replicas of a name; how many there were."""
    found = records.beside(endpoints_dir, name)
    for replica in found:
        end(replica)
    for replica in found:  # as above
        records.delete(endpoints_dir, replica.name)
    return len(found)


def _words(ended: Sequence[int | str], endpoint: Endpoint) -> str:
    if not ended:
        return "nothing"
    what = f"process {ended[0]}" if isinstance(ended[0], int) else endpoint.process.words
    return what + (f" and {len(ended) - 1} it had started" if ended[1:] else "")
