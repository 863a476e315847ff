"""Answers on disk as they come, so that what was killed goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType

from flows.endpoint_client.request import BatchOptions, Completion, Request
from flows.endpoint_client.target import Target
from flows.store.digest import value_digest


def key_of(target: Target, request: Request, options: BatchOptions) -> str:
    """What makes two requests the same: the model, what is asked, and the options that can change the answer.

    The address does not count: an endpoint that came up again on another port is the same.
    """
    asked = request.model_dump(exclude={"id"})
    return value_digest([target.model, asked, options.max_tokens, options.temperature])


class Kept:
    """Completions by key, in a file of JSON lines, or in memory alone without a path.

    Each line is written whole, in one call; a line that a kill tore is forgotten. One writer at a time.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.completions: dict[str, Completion] = {}
        self._stream = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("ab+", buffering=0)
        self._stream.seek(0)
        content = self._stream.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._stream.truncate(len(whole))
        for line in whole.split(b"\n")[:-1]:
            self._read(line)

    def _read(self, line: bytes) -> None:
        try:
            value = json.loads(line)
            key = str(value.pop("key"))
            self.completions[key] = Completion.model_validate(value)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            return  # none of ours, or damaged: it is asked again

    def keep(self, key: str, completion: Completion) -> None:
        """Add an answer; it is in the file when this returns (in the kernel's hands, not yet on the platter)."""
        self.completions[key] = completion
        if self._stream is not None:
            line = json.dumps({"key": key, **completion.model_dump()}, ensure_ascii=False)
            self._stream.write(line.encode() + b"\n")

    def __enter__(self) -> Kept:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()
