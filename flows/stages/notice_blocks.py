"""The Prefect blocks through which runs tell of themselves: whether they are there, and whether they can."""

from __future__ import annotations

from typing import Any

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from flows.reporting.notice_config import NoticeConfig, addresses_wrong

FIELD = "run.notify"
EMAIL, WEBHOOK = "email-server-credentials", "webhook"


def notice_problems(config: NoticeConfig) -> list[str]:
    """What is wrong with the blocks and the addresses, a line each."""
    found = []
    for number, name in enumerate(config.blocks):
        here = f"{FIELD}.blocks[{number}]"
        document = block_document(name)
        if document is None:
            found.append(
                f"{here}: there is no block '{name}'. It is TYPE/NAME, as `prefect block ls` shows it; make one in the "
                "Prefect UI under Blocks."
            )
        elif document.block_type.slug == EMAIL:
            found += addresses_wrong(config, document.data.get("username"), FIELD)
        elif document.block_type.slug != WEBHOOK and "notify" not in document.block_schema.capabilities:
            found.append(
                f"{here}: the block '{name}' cannot send messages. Take one of Slack, Teams, Discord, Mattermost, "
                f"Custom Webhook, Webhook or Email Server Credentials."
            )
    return list(dict.fromkeys(found))


def block_document(name: str) -> Any:
    """The block `TYPE/NAME` as the server keeps it, secrets left out; None if there is none."""
    kind, _, own = name.partition("/")
    if not kind or not own:
        return None
    with get_client(sync_client=True) as client:
        try:
            return client.read_block_document_by_name(own, kind, include_secrets=False)
        except ObjectNotFound:
            return None
