"""A limit on a whole request: the timeouts of httpx count between two bytes, so a server that drips has none."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Any


class Deadline:
    """Ends the connection of one request after `seconds`, wherever it is: handshake, headers, 1xx answers, body.

        with Deadline(5) as deadline:
            client.get(url, extensions={"trace": deadline.trace})

    Attributes:
        passed: whether it did; the request then fails as one whose server went away.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Deadline:
        """The time runs from here."""
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """It runs no more."""
        self._timer.cancel()
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """For httpx's extension `trace`. Source: https://www.python-httpx.org/advanced/extensions/#trace."""
        if event == "connection.connect_tcp.complete":
            # A copy of the descriptor: TLS takes the socket itself over, and leads the same connection.
            connection = info["return_value"].get_extra_info("socket").dup()
            with self._lock:
                self._connections.append(connection)
                if self.passed:
                    _break(connection)

    def _end(self) -> None:
        with self._lock:
            self.passed = True
            for connection in self._connections:
                _break(connection)


def _break(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
