"""Why a start failed: causes told from the log, each with words and what to do."""

from __future__ import annotations

import re
from collections import deque
from enum import Enum
from pathlib import Path

from flows.errors import ServingError

LOG_LINES = 50


class Cause(Enum):
    """A kind of failure. The first whose pattern the log holds is taken, so the order is from plain to vague."""

    words: str
    remedy: str
    pattern: str

    PORT_IN_USE = (
        "port in use",
        "Choose another port, or 0 for a free one.",
        r"address already in use|\[Errno 98\]",
    )
    OUT_OF_MEMORY = (
        "out of memory",
        "Free memory (other endpoints: python -m flows.serving list), or serve a smaller model.",
        r"out of memory|OutOfMemoryError|MemoryError|can't allocate memory|Cannot allocate memory|std::bad_alloc",
    )
    UNKNOWN_MODEL = (
        "unknown model",
        "The folder holds no model that this server can load: it needs config.json of a supported architecture, "
        "tokenizer files and weights.",
        r"does not recognize this architecture|Unrecognized (model|processing class|configuration class)|"
        r"Error no file named|does not appear to have a file named|model type `|Incorrect path_or_model_id",
    )
    MISSING_PATH = (
        "missing path",
        "Check that the model folder exists and that this user may read it.",
        r"No such file or directory|FileNotFoundError|Repo id must be in the form|Permission denied",
    )
    OTHER = ("unknown", "The log says more.", r"")

    def __new__(cls, words: str, remedy: str, pattern: str) -> Cause:
        """Keep remedy and pattern beside the words."""
        member = object.__new__(cls)
        member._value_ = member.words = words
        member.remedy = remedy
        member.pattern = pattern
        return member


class StartError(ServingError):
    """A server did not become healthy; `cause` is its kind, `log_lines` the end of its log."""

    def __init__(self, message: str, cause: Cause, log_lines: list[str]) -> None:
        self.cause = cause
        self.log_lines = log_lines
        log = "\n".join(f"  | {line}" for line in log_lines) or "  | (nothing)"
        super().__init__(f"{message}\nLast {len(log_lines)} lines of the log:\n{log}")


def classify(log_lines: list[str], exit_code: int | None = None) -> Cause:
    """The cause of a failed start. A process killed by SIGKILL that nobody sent is out of memory: the kernel's way."""
    if exit_code in (-9, 137):
        return Cause.OUT_OF_MEMORY
    text = "\n".join(log_lines)
    return next(cause for cause in Cause if re.search(cause.pattern, text, re.IGNORECASE))


def last_lines(log: Path, count: int = LOG_LINES) -> list[str]:
    """The last lines of a log; a progress bar's redrawn states count as one line."""
    try:
        with log.open(encoding="utf-8", errors="replace", newline="\n") as stream:
            return [line.rstrip().rpartition("\r")[2] for line in deque(stream, count)]
    except FileNotFoundError:
        return []
