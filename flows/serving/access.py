"""Requests to an endpoint with what its runtime says they need: a key, other headers, the certificates of a cluster."""

from __future__ import annotations

import functools
import ssl
from typing import TYPE_CHECKING, Any

import httpx

from flows.endpoint_client import routes
from flows.endpoint_client.deadline import Deadline
from flows.errors import ServingError
from flows.serving.endpoint import Endpoint
from flows.serving.registry import RUNTIMES

if TYPE_CHECKING:
    from flows.endpoint_client.target import Target

MOST_BYTES = 4 << 20  # of an answer: the models of a big gateway and an engine's metrics take a tenth of it


def request(
    endpoint: Endpoint,
    method: str,
    url: str,
    timeout_s: float,
    body: dict[str, Any] | None = None,
    connect_s: float | None = None,
) -> httpx.Response:
    """One request, past the environment's proxies if it goes to this machine: they are not meant for that.

    Args:
        endpoint: whose runtime says what the request needs.
        method: as GET.
        url: at that endpoint.
        timeout_s: seconds for all of it, to the answer's last byte.
        body: sent as JSON.
        connect_s: seconds for the connection, if less.

    Returns:
        Status and body, without headers.

    Raises:
        ServingError: a key that it needs is not here, or there can be no such request.
        httpx.HTTPError: no answer; TimeoutException: not all of it in time.
    """
    runtime = RUNTIMES[endpoint.runtime]
    headers = {"Accept-Encoding": "identity"} | runtime.headers(endpoint.process)
    limits = httpx.Timeout(timeout_s, connect=connect_s or timeout_s)
    with Deadline(timeout_s) as deadline:
        more: Any = {"json": body, "headers": headers, "timeout": limits, "extensions": {"trace": deadline.trace}}
        try:
            client = _client(not routes.on_this_machine(url), runtime.tls(endpoint.process))
            with client.stream(method, url, **more) as response:
                return httpx.Response(response.status_code, content=_body(response))
        except (httpx.InvalidURL, ValueError) as error:  # the name of a host, or a text that UTF-8 cannot hold
            raise ServingError(f"Nothing can be asked at {url}: {error}.") from error
        except httpx.HTTPError as error:
            if deadline.passed:
                raise httpx.ReadTimeout(f"not all of the answer within {timeout_s:g} s") from error
            raise


def _body(response: httpx.Response) -> bytes:
    """The body as it is sent, for it was asked for as it is: a packed one could grow without end."""
    held = bytearray()
    for part in response.iter_raw():
        held += part
        if len(held) > MOST_BYTES:
            raise httpx.RemoteProtocolError(f"its answer is longer than {MOST_BYTES >> 20} MiB")
    return bytes(held)


def target(endpoint: Endpoint) -> Target:
    """The endpoint's server, past a front, as the client of many requests asks it; its model may be unknown (empty)."""
    from flows.endpoint_client.target import Target  # here: the OpenAI client takes 0.6 s, and probes do without it

    runtime, record = RUNTIMES[endpoint.runtime], endpoint.process
    if endpoint.runtime == "kubernetes":
        routes.add(endpoint.url, routes.Route(lambda: runtime.headers(record), runtime.tls(record)))
    return Target(base_url=endpoint.url, model=endpoint.model, api_key_env=getattr(record, "key_variable", ""))


def public_target(endpoint: Endpoint) -> Target:
    """The endpoint as others ask it: through its front, with a token if that wants one; else `target`."""
    from flows.endpoint_client.target import Target

    if endpoint.front is None:
        return target(endpoint)
    return Target(base_url=endpoint.public_url, model=endpoint.model, api_key_env=endpoint.key_variable)


@functools.cache
def _client(proxies: bool, tls: ssl.SSLContext | None) -> httpx.Client:
    """One for all threads: a client of its own for every request costs more time than the request.

    No connection is kept: a server that was started again would be met through a dead one.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.Client(trust_env=proxies, limits=limits, verify=tls or True)
