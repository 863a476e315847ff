"""A client that streams many answers at a time and costs little itself: so many tokens a second, and what broke."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

QUESTION = {"model": "fast", "stream": True, "messages": [{"role": "user", "content": "What is a bill of lading?"}]}

TOKEN = re.compile(rb'"content": ?"word')


@dataclass
class Streamed:
    """What came of some streams: `first_s` are the seconds to each one's first token, `broken` the words for errors."""

    tokens: int = 0
    seconds: float = 0.0
    first_s: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def tokens_per_s(self) -> float:
        """Of all streams together."""
        return self.tokens / self.seconds

    @property
    def first_ms(self) -> float:
        """Median time to the first token, ms."""
        return 1000 * statistics.median(self.first_s)


def stream(
    url: Callable[[], str], at_a_time: int, count: int = 0, until: Callable[[], bool] | None = None, key: str = ""
) -> Streamed:
    """Ask `count` questions, or as many as fit before `until` comes true; `url` is asked before each."""
    return asyncio.run(_all(url, at_a_time, count, until, key))


async def _all(
    url: Callable[[], str], at_a_time: int, count: int, until: Callable[[], bool] | None, key: str
) -> Streamed:
    found, left = Streamed(), count
    clock = asyncio.get_running_loop().time

    async def client() -> None:
        nonlocal left
        while not until() if until else left > 0:
            left -= 1
            try:
                await _one(url(), key, found)
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                found.broken.append(f"{type(error).__name__}: {error}")

    began = clock()
    await asyncio.gather(*(client() for _ in range(at_a_time)))
    found.seconds = clock() - began
    return found


async def _one(url: str, key: str, found: Streamed) -> None:
    place, body = urlsplit(url), json.dumps(QUESTION)
    clock = asyncio.get_running_loop().time
    began = clock()
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        head = f"POST {place.path}/chat/completions HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n"
        auth = f"Authorization: Bearer {key}\r\n" if key else ""
        more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + auth + more + body).encode())
        status = await reader.readline()
        if b" 200 " not in status:
            raise ValueError(status.decode().strip() or "closed without an answer")
        await reader.readuntil(b"\r\n\r\n")
        came = b""
        while size := int(await reader.readline(), 16):  # a proxy may cut the parts anew, in the middle of a line too
            came += (await reader.readexactly(size + 2))[:-2]
            if len(came) == size:
                found.first_s.append(clock() - began)
        if not came.endswith(b"data: [DONE]\n\n"):
            raise ValueError("broke off")
        found.tokens += len(TOKEN.findall(came))
    finally:
        writer.close()
