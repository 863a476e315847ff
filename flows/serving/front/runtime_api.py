"""Questions and orders to a running HAProxy, over its socket.

Source: https://docs.haproxy.org/2.6/management.html#9.3
"""

from __future__ import annotations

import csv
import io
import os
import socket
from pathlib import Path

from flows.errors import ServingError
from flows.serving.front.haproxy import BACKEND, SOCKET

TIMEOUT_S = 5.0


def ask(folder: Path, question: str) -> str:
    """The answer, without the line's end.

    Raises:
        ServingError: nobody answers there within 5 s.
    """
    said = b""
    try:
        # A socket's path may hold 107 characters, and a folder's may be longer: through its descriptor it is short.
        place = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(TIMEOUT_S)
                connection.connect(f"/proc/self/fd/{place}/{SOCKET}")
                connection.sendall(f"{question}\n".encode())
                while part := connection.recv(65536):
                    said += part
        finally:
            os.close(place)
    except OSError as error:
        raise ServingError(f"The front in {folder} does not answer ({error.strerror or error}).") from error
    return said.decode().strip()


def order(folder: Path, words: str, answer: str = "") -> None:
    """Have something done; `answer` is what HAProxy says when it has.

    Raises:
        ServingError: it has not, or does not answer.
    """
    if (said := ask(folder, words)) != answer:
        raise ServingError(f"The front in {folder} refuses '{words[:100]}': {said[:300] or 'no word'}")


def servers(folder: Path) -> dict[str, dict[str, str]]:
    """The figures of all servers by address, as `show stat` names them."""
    text = ask(folder, f"show stat {BACKEND} 4 -1").removeprefix("# ")
    return {row["svname"]: row for row in csv.DictReader(io.StringIO(text))}
