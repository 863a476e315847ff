"""What a variant hands to a runtime: what to run and how its readiness is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from flows.store.digest import value_digest


@dataclass(frozen=True)
class Launch:
    """One server to start: `env` is added to the inherited environment; secrets belong there, never in `command`."""

    command: list[str]
    env: dict[str, str]
    model: str
    ready_path: str

    def digest(self) -> str:
        """SHA-256 of command and environment: two launches with the same one run the same server."""
        return value_digest([self.command, self.env])
