"""Which servers get the requests that come to a front; changed through its runtime API, so nothing is dropped."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from flows.errors import ServingError
from flows.serving.front import folder as files
from flows.serving.front import haproxy, runtime_api
from flows.serving.front.record import FrontRecord
from flows.serving.runtimes.process import wait_until

ADDRESS = re.compile(r"^\d{1,3}(\.\d{1,3}){3}:\d{1,5}$")
SERVER = haproxy.BACKEND
OUT = ("DRAIN", "MAINT", "DOWN")  # as the status of a server begins that gets no new requests


class ServerStats(NamedTuple):
    """What a front has seen of one server since it was named first.

    Attributes:
        requests: that were sent to it, the running ones included.
        errors: answers of 500 and above, connections it refused, answers it broke off.
        sessions: requests that are running.
        first_byte_ms, total_ms: averages of the last 1024: until the answer began, until it was all there.
    """

    requests: int
    errors: int
    sessions: int
    first_byte_ms: int
    total_ms: int


def route(record: FrontRecord, shares: dict[str, int]) -> None:
    """Give new requests to exactly these servers, by these weights; running ones finish where they are.

    Args:
        record: of a front that runs.
        shares: weight 0 to 256 by address, as {"127.0.0.1:8001": 90, "127.0.0.1:8002": 10}; with weight 0 a server is
            known and gets nothing. Nobody at all: requests are answered with 503.

    Raises:
        ServingError: the front does not run, or an address or weight is none. What it was told before that stays:
            `current` tells it from what was wished, and asking for the same again mends it.
    """
    for address, share in shares.items():
        if not ADDRESS.match(address) or not 0 <= share <= 256:
            raise ServingError(f"A front cannot give the share {share} to {address}: 0 to 256, to an IP address:port.")
    folder = record.path
    with files.held(folder):
        files.save_shares(folder, shares)  # first: a restart in between comes up as wished
        known = runtime_api.servers(folder)
        # Who gains most comes first: if the others lost theirs before, nobody would be there for a moment.
        for address, share in sorted(shares.items(), key=lambda item: item[1], reverse=True):
            if address not in known:
                added = f"add server {SERVER}/{address} {address} weight {share}"
                runtime_api.order(folder, added, "New server registered.")
            else:
                runtime_api.order(folder, f"set server {SERVER}/{address} weight {share}")
            runtime_api.order(folder, f"set server {SERVER}/{address} state ready")
        for address in known.keys() - shares.keys():
            runtime_api.order(folder, f"set server {SERVER}/{address} state drain")
            if int(runtime_api.servers(folder)[address]["scur"]) == 0:
                _forget(record, address)


def current(record: FrontRecord) -> dict[str, int]:
    """Who really gets new requests, by weight: after a `route` that failed, this is not what was wished.

    Raises:
        ServingError: the front does not run.
    """
    known = runtime_api.servers(record.path)
    weights = {address: int(row["weight"]) for address, row in known.items() if not row["status"].startswith(OUT)}
    return {address: weight for address, weight in weights.items() if weight}


def drained(record: FrontRecord, address: str) -> bool:
    """Whether no request runs on that server through the front any more; a front that is dead has none."""
    try:
        server = runtime_api.servers(record.path).get(address)
    except ServingError:
        return not files.alive(record)
    return server is None or int(server["scur"]) == 0


def wait_drained(record: FrontRecord, address: str, longest_s: float = math.inf) -> bool:
    """Whether that is so within the front's `drain_s`, or `longest_s` if that is less."""
    return wait_until(lambda: drained(record, address), min(record.options.drain_s, longest_s))


def statistics(record: FrontRecord) -> dict[str, ServerStats]:
    """What the front has seen of each server it knows.

    Raises:
        ServingError: the front does not run.
    """
    return {address: _stats(row) for address, row in runtime_api.servers(record.path).items()}


def together(stats: Sequence[ServerStats]) -> ServerStats:
    """Of several servers: sums, and averages weighted by their requests."""
    requests = sum(one.requests for one in stats)

    def average(times: list[int]) -> int:
        weighted = sum(ms * one.requests for ms, one in zip(times, stats, strict=True))
        return round(weighted / requests) if requests else 0

    return ServerStats(
        requests,
        sum(one.errors for one in stats),
        sum(one.sessions for one in stats),
        average([one.first_byte_ms for one in stats]),
        average([one.total_ms for one in stats]),
    )


def _stats(row: dict[str, str]) -> ServerStats:
    """Source: https://docs.haproxy.org/2.6/management.html#9.1 for the columns."""
    number = {key: int(value) for key, value in row.items() if value.isdigit()}
    answered = sum(number[f"hrsp_{kind}"] for kind in ("1xx", "2xx", "3xx", "4xx", "5xx", "other"))
    requests = number["stot"] - number["wretr"]  # every try counts as a session of its own
    # A server that closes without a word is counted nowhere if it was not its client's first request: it shows only as
    # a request without an answer. So does a client that went away, and what runs may have been answered or not.
    unanswered = requests - answered - number["scur"] - number["cli_abrt"]
    counted = number["econ"] + max(0, number["eresp"] - number["srv_abrt"])
    errors = number["hrsp_5xx"] + number["srv_abrt"] + max(unanswered, counted)
    return ServerStats(requests, errors, number["scur"], number["rtime"], number["ttime"])


def _forget(record: FrontRecord, address: str) -> None:
    """Forget a server that nothing runs on; one that just got a request stays, draining, until the next change."""
    runtime_api.order(record.path, f"set server {SERVER}/{address} state maint")
    said = runtime_api.ask(record.path, f"del server {SERVER}/{address}")
    if said != "Server deleted.":
        runtime_api.order(record.path, f"set server {SERVER}/{address} state drain")
