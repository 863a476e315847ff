"""Errors for people: what was wrong, where, what to do. One class a kind, and each knows if a retry can help."""

from __future__ import annotations

import errno


class FinetuneError(Exception):
    """Base of all errors this project raises on purpose; its text is shown to the user without a traceback."""

    retryable = False


class ConfigError(FinetuneError):
    """A parameter is wrong or two contradict each other. Lists every problem found, one a line."""

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DataError(FinetuneError):
    """The source text cannot be used; names the file and, where there is one, the line and the field."""


class ModelError(FinetuneError):
    """The base model is unknown, unreadable or lacks something needed (a chat template, a supported layer)."""


class EvaluationError(FinetuneError):
    """An evaluation cannot be made: no held-out rows, no such embedder, a judge that refuses our request."""


class ServingError(FinetuneError):
    """An endpoint could not be started or stopped; holds the classified cause and the last log lines."""


class BudgetError(FinetuneError):
    """What the run may cost is used up. What was finished is kept; a run with a greater budget goes on from there."""


class OutOfDiskError(FinetuneError):
    """The disk is full. Nothing half-written is left; free space and run again, the work goes on from there."""


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, of whatever library, means that the disk is full."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors and torch.save lose the errno; torch only says that a write failed.
    words = ("No space left on device", "StorageFull", "PytorchStreamWriter failed writing")
    return any(word in str(error) for word in words)


class RunEndedError(FinetuneError):
    """The run is being ended from outside (cancelled, killed), so its branches end what they have begun."""

    def __init__(self) -> None:
        super().__init__("The run is being ended.")


def system_words(error: OSError) -> str:
    """What the machine refused, for people: a file or a folder, or room for it."""
    return f"{'the disk is full; free some space and run again: ' if is_disk_full(error) else ''}{error}."


class TransientError(FinetuneError):
    """Something that a retry may mend: a killed child process, an endpoint that does not answer."""

    retryable = True
