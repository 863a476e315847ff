"""Requests to an endpoint with what its runtime says they need: a key, other headers, the certificates of a cluster."""

from __future__ import annotations

import functools
import ssl
from typing import TYPE_CHECKING, Any

import httpx

from flows.endpoint_client import routes
from flows.serving.endpoint import Endpoint
from flows.serving.registry import RUNTIMES

if TYPE_CHECKING:
    from flows.endpoint_client.target import Target


def request(
    endpoint: Endpoint, method: str, url: str, timeout: float | httpx.Timeout, body: dict[str, Any] | None = None
) -> httpx.Response:
    """One request, past the environment's proxies if it goes to this machine: they are not meant for that.

    Raises:
        ServingError: a key that it needs is not here.
        httpx.HTTPError: no answer.
    """
    runtime = RUNTIMES[endpoint.runtime]
    client = _client(not routes.on_this_machine(url), runtime.tls(endpoint.process))
    return client.request(method, url, json=body, headers=runtime.headers(endpoint.process), timeout=timeout)


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
