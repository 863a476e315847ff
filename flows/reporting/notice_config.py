"""Whom a run tells of its end, and of which ends."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.config import Config

Event = Literal["succeeded", "gate-failed", "failed", "nothing-changed"]


class NoticeConfig(Config):
    """Messages with the result of a run, through Prefect blocks in which address and secrets lie."""

    blocks: list[str] = Field(
        default=[],
        title="Blocks",
        description="TYPE/NAME as `prefect block ls` shows them, for instance slack-webhook/team, webhook/ci or "
        "email-server-credentials/mail. Empty: nobody is told.",
    )
    events: list[Event] = Field(
        default=["succeeded", "gate-failed", "failed"],
        title="Events",
        description="Which ends of a run are told; nothing-changed is that of a run with Only if changed.",
    )
    email_to: list[str] = Field(
        default=[],
        title="E-mail to",
        description="Addresses, for the blocks of the type email-server-credentials.",
    )
    email_from: str = Field(
        default="",
        title="E-mail from",
        description="An address. Empty: the user name in the block, if it is one.",
    )


def addresses_wrong(config: NoticeConfig, user_name: str | None, where: str) -> list[str]:
    """What keeps an e-mail from being addressed, a line each; `where` is the path of the config's field."""
    found = []
    if not config.email_to:
        found.append(
            f"{where}.email_to: no address is given, and a block of e-mail is named. Say who gets the message."
        )
    found += [
        f"{where}.email_to: '{address}' is no e-mail address." for address in config.email_to if not _is_one(address)
    ]
    sender = config.email_from or user_name or ""
    if not _is_one(sender):
        found.append(f"{where}.email_from: give the sender's address; the block's user name is none.")
    return found


def _is_one(address: str) -> bool:
    name, at, domain = address.rpartition("@")
    return bool(name and at and domain) and not any(sign.isspace() or sign in "<>,;" for sign in address)
