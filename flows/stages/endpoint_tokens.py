"""Tokens of endpoints in Prefect: an OpenAI Endpoint block holds each, and nothing else ever shows one."""

from __future__ import annotations

from typing import Any

from prefect.exceptions import ObjectNotFound

from blocks.openai_endpoint import OpenAIEndpoint
from flows.errors import ConfigError, ServingError
from flows.serving import records
from flows.serving.endpoint import Endpoint
from flows.serving.front import tokens
from flows.serving.front.tokens import Token
from flows.store.layout import Store


def issue(store: Store, name: str, token_name: str, days: int, block: str = "") -> str:
    """Make a token and write it, with address and model of the endpoint, into a block; the block's name.

    A block of another address is not written over, and a token that could not be kept is revoked.

    Raises:
        ConfigError: the block is somebody else's.
        ServingError: see `tokens.issue`; or the endpoint has no front.
    """
    endpoint = records.load(store.endpoints, name)
    if endpoint is None:
        raise records.unknown(store.endpoints, name)
    if endpoint.front is None:
        raise ServingError(f"{name} has no front, so nothing asks for a token. Serve it with serve.front.enabled on.")
    block = block or f"{name}-{token_name}"
    _refuse_others(block, endpoint)
    plain = tokens.issue(store.endpoints, name, token_name, days, block)
    try:
        made = OpenAIEndpoint(base_url=endpoint.public_url, model=endpoint.model, api_key=plain)
        made.save(block, overwrite=True)
    except BaseException:
        tokens.revoke(store.endpoints, name, token_name)
        raise
    return block


def revoke(store: Store, name: str, token_name: str) -> Token:
    """Take a token back, and delete the block that holds it.

    Raises:
        ServingError: see `tokens.revoke`.
    """
    revoked = tokens.revoke(store.endpoints, name, token_name)
    if revoked.block and (found := _load(revoked.block)) and tokens.sha256(_key(found)) == revoked.sha256:
        OpenAIEndpoint.delete(revoked.block)
    return revoked


def key_for(store: Store, name: str) -> str:
    """A token of that endpoint that some block of this Prefect holds and that the front takes; empty if none is."""
    for one in reversed(tokens.valid(store.endpoints, name)):
        if one.block and (found := _load(one.block)) and tokens.sha256(key := _key(found)) == one.sha256:
            return key
    return ""


def _refuse_others(block: str, endpoint: Endpoint) -> None:
    found = _load(block)
    if found and found.base_url != endpoint.public_url:
        raise ConfigError(
            f"block: the OpenAI Endpoint block '{block}' is of {found.base_url}, not of {endpoint.name} "
            f"({endpoint.public_url}). Choose another name."
        )


def _load(block: str) -> Any:
    try:
        return OpenAIEndpoint.load(block)
    except (ValueError, ObjectNotFound):
        return None


def _key(block: Any) -> str:
    return str(block.api_key.get_secret_value())
