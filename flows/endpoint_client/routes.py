"""Ways to endpoints that need more than an address and a key, as a cluster behind certificates of its own.

They last as long as this process: what they hold (tokens, certificates) is written nowhere.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Route(NamedTuple):
    """`headers` gives what a request carries, anew for each; `tls` is how certificates are checked and ours shown."""

    headers: Callable[[], dict[str, str]]
    tls: ssl.SSLContext | None


_routes: dict[str, Route] = {}


def add(base_url: str, route: Route) -> None:
    """Ask the endpoint at `base_url` this way from now on."""
    _routes[base_url] = route


def on_this_machine(url: str) -> bool:
    """Whether it leads to this machine: proxies of the environment are not meant for that."""
    return urlsplit(url).hostname in LOOPBACK


def of(base_url: str) -> Route | None:
    """How to ask the endpoint at `base_url`; None: as any other."""
    return _routes.get(base_url)
