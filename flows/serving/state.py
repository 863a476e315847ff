"""The states of an endpoint, each with words for people."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """What is known of an endpoint; the value is what reports and records hold."""

    words: str

    PENDING = "PENDING", "Accepted, not started yet."
    STARTING = "STARTING", "Its process runs and loads the model; it has not answered yet."
    HEALTHY = "HEALTHY", "Its process lives, it serves the right model, and it has answered a question."
    DEGRADED = "DEGRADED", "It serves the right model, but a question was not answered in time (busy, or stuck)."
    UNHEALTHY = "UNHEALTHY", "Its process lives, but it does not answer, answers wrongly or serves another model."
    FAILED = "FAILED", "Its process ended without being asked to."
    DRAINING = "DRAINING", "It is being stopped."
    STOPPED = "STOPPED", "It was stopped on request."
    UNVERIFIED = "UNVERIFIED", "Its process lives, but nobody can say that it answers."

    def __new__(cls, value: str, words: str) -> State:
        """Keep the words beside the value."""
        member = object.__new__(cls)
        member._value_ = value
        member.words = words
        return member
