"""What a person chooses for the watcher, an endpoint each; both ways of acting are off unless switched on."""

from __future__ import annotations

from pydantic import Field

from flows.config import Config


class WatchOptions(Config):
    """What the watcher may do by itself, beside starting again what ended."""

    restart_unhealthy_after_s: float = Field(
        default=0,
        ge=0,
        le=86400,
        title="Restart when unhealthy for (s)",
        description="A server that lives but was UNHEALTHY for so many seconds (a hung engine) is ended and started "
        "again, with the same pauses and as often as one that ended by itself. 0: never. Requests it still holds are "
        "lost.",
    )
    roll_back_when_given_up: bool = Field(
        default=False,
        title="Roll back when given up",
        description="After five restarts in vain the revision before takes over, by the automation that `make deploy` "
        "applies. A revision that is itself a roll-back is not rolled back by itself.",
    )
