"""Further servers of the model of an endpoint, behind its front: `NAME.2`, `NAME.3` ... beside `NAME`.

They are tended, not awaited: each call of `tend` ends those that should not be, starts those that are missing, asks the
others, and has the front share the requests among the servers that answer. The watcher calls it at every pass, a
promotion and `scale-endpoint` until all answer.
"""

from __future__ import annotations

import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from flows.errors import FinetuneError
from flows.progress import Progress, silent
from flows.serving import probe, records, revisions, start
from flows.serving.endpoint import Endpoint
from flows.serving.front import following
from flows.serving.front.following import ANSWERING
from flows.serving.registry import RUNTIMES
from flows.serving.revisions import Revision
from flows.serving.state import State
from flows.serving.stop import end, end_behind

PAUSE = timedelta(seconds=300)  # between two starts of a replica that fails again and again
logger = logging.getLogger(__name__)


class Replicas(NamedTuple):
    """How many servers an endpoint should have, and how many of those beside it answer; why others do not."""

    wanted: int
    answering: int
    why: str

    @property
    def complete(self) -> bool:
        """Whether all of them answer."""
        return self.answering >= self.wanted - 1


def tend(endpoint: Endpoint, endpoints_dir: Path, longest_drain_s: float = math.inf) -> Replicas:
    """Bring the replicas of an endpoint nearer to what its revision says; hold its name (`records.starting`).

    One that ended, or did not answer within its startup budget, is started again; one that hangs gets no requests.
    Those that should not be have the front's `drain_s`, or `longest_drain_s`, for their running requests.

    Raises:
        ServingError: its revision is not kept, or the front does not run.
    """
    revision = revisions.load(endpoints_dir, endpoint.name, endpoint.revision)
    wanted = revision.config.front.replicas if endpoint.front else 1
    found = {number_of(one): one for one in records.beside(endpoints_dir, endpoint.name)}
    for number, one in list(found.items()):
        if number > wanted or one.settings != endpoint.settings or one.revision != endpoint.revision:
            _give_up(endpoint, found.pop(number), endpoints_dir, longest_drain_s)
    if wanted == 1:
        following.share(endpoint, [])
        return Replicas(1, 0, "")
    budget_s = start.startup_budget_s(revision.config, Path(revision.model_dir))
    with ThreadPoolExecutor(max_workers=max(len(found), 1)) as pool:
        checked = list(pool.map(lambda one: _checked(one, budget_s), found.values()))
    kept, why = [], []
    for number in range(2, wanted + 1):
        known = next((one for one in checked if number_of(one) == number), None)
        try:
            one = _started(endpoint, revision, number, known, endpoints_dir)
        except FinetuneError as error:
            why.append(f"Replica {number} could not be started: {error}")
            continue
        kept.append(one)
        if one.state not in ANSWERING:
            why.append(f"Replica {number} is {one.state.value}. {one.why}".rstrip())
    answering = [one for one in kept if one.state in ANSWERING]
    following.share(endpoint, answering)
    return Replicas(wanted, len(answering), " ".join(why))


def bring_up(endpoint: Endpoint, endpoints_dir: Path, budget_s: float, progress: Progress) -> Replicas:
    """Tend the replicas until all answer or the seconds are over; who is late is left to the watcher.

    It holds the name for moments only, and ends when the endpoint is stopped, replaced or started again meanwhile.

    Raises:
        ServingError: as `tend`.
    """
    began = time.monotonic()
    while True:
        with records.starting(endpoints_dir, endpoint.name):
            if records.load(endpoints_dir, endpoint.name) != endpoint:
                return Replicas(1, 0, f"{endpoint.name} was stopped, replaced or started again meanwhile.")
            found = tend(endpoint, endpoints_dir)
        spent = time.monotonic() - began
        if found.complete or spent >= budget_s:
            break
        progress(spent, budget_s, f"{found.answering + 1} of {found.wanted} replicas answer")
        time.sleep(start.POLL_S)
    if not found.complete:
        logger.warning("%s has %d of %d replicas. %s", endpoint.name, found.answering + 1, found.wanted, found.why)
    return found


def number_of(replica: Endpoint) -> int:
    """2 for `NAME.2`."""
    return int(replica.name.rpartition(".")[2])


def _give_up(endpoint: Endpoint, replica: Endpoint, endpoints_dir: Path, longest_drain_s: float) -> None:
    """End a replica that is one too many or of a former revision, after its running requests."""
    others = [one for one in records.beside(endpoints_dir, endpoint.name) if one.name != replica.name]
    following.share(endpoint, others)
    end_behind(endpoint.front, replica, longest_drain_s)
    records.delete(endpoints_dir, replica.name)


def _checked(replica: Endpoint, budget_s: float) -> Endpoint:
    """The replica with its true state; STARTING, while it may take its time."""
    found = probe.check(replica)
    starting = replica.state is State.STARTING and RUNTIMES[replica.runtime].alive(replica.process)
    if not starting or found.state in ANSWERING:
        return found
    if datetime.now(UTC) - datetime.fromisoformat(replica.started) < timedelta(seconds=budget_s):
        return replica.model_copy(update={"why": found.why})
    why = f"It did not answer within {budget_s:g} s. {found.why}"
    return replica.model_copy(update={"state": State.FAILED, "why": why})


def _started(
    endpoint: Endpoint, revision: Revision, number: int, replica: Endpoint | None, endpoints_dir: Path
) -> Endpoint:
    """The replica as it is, or STARTING: it is missing, or it ended and may be started again by now."""
    if replica is not None:
        records.save(endpoints_dir, replica)
        due = datetime.now(UTC) - datetime.fromisoformat(replica.started) >= PAUSE
        if replica.state is not State.FAILED or not due:
            return replica
        end(replica)  # its workers may have outlived it
    config, folder = revision.config, Path(revision.model_dir)
    made, _ = start.launch_beside(config, folder, endpoints_dir, silent, current=endpoint, replica=number)
    keeps = {key: getattr(endpoint, key) for key in ("revision", "run_id", "run_url", "model_uri")}
    new = made.model_copy(update=keeps | {"name": f"{endpoint.name}.{number}"})
    try:
        records.save(endpoints_dir, new)
    except BaseException:
        end(new)
        raise
    return new
