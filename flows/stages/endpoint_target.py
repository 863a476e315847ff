"""From what a person names, an endpoint of the store or an OpenAI Endpoint block, to where requests go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from blocks.openai_endpoint import OpenAIEndpoint
from flows.config import Config
from flows.endpoint_client.target import Target
from flows.errors import ConfigError, ServingError
from flows.serving import access, probe, records
from flows.serving.endpoint import KEY_VARIABLE, Endpoint
from flows.serving.names import NAME_OR_NONE
from flows.serving.state import State
from flows.stages import endpoint_tokens
from flows.store.layout import Store


class EndpointChoice(Config):
    """Which endpoint is asked; exactly one of the two."""

    name: str = Field(
        default="",
        title="Endpoint",
        description="Name of an endpoint of the store.",
        pattern=NAME_OR_NONE,
    )
    block: str = Field(
        default="",
        title="OpenAI Endpoint block",
        description="Name of a block with the address, model and key of any OpenAI-compatible endpoint.",
    )


@dataclass(frozen=True)
class Chosen:
    """Where requests go. `secrets` belong in the environment; `identity` tells two models of one name apart."""

    target: Target
    identity: list[str]
    secrets: dict[str, str] = field(default_factory=dict, repr=False)


def find_target(store: Store, choice: EndpointChoice) -> Chosen:
    """The target of the choice; whether it answers is not asked.

    Raises:
        ConfigError: none or both are given, or there is no such block.
        ServingError: there is no such endpoint, or it does not run.
    """
    if bool(choice.name) == bool(choice.block):
        what = "both are" if choice.name else "none is"
        raise ConfigError(f"endpoint: give exactly one of name and block; {what} given.")
    if choice.name:
        return _of_store(store, choice.name)
    block = load_block(choice.block, "endpoint.block")
    target = Target(base_url=block.base_url, model=block.model, api_key_env=KEY_VARIABLE)
    return Chosen(target, [block.base_url, block.model], {KEY_VARIABLE: block.api_key.get_secret_value()})


def _of_store(store: Store, name: str) -> Chosen:
    endpoint = records.load(store.endpoints, name)
    if endpoint is None:
        raise records.unknown(store.endpoints, name)
    if endpoint.state in (State.STOPPED, State.DRAINING):
        raise ServingError(f"endpoint.name: '{name}' is {endpoint.state.value}. Serve it again with serve-variant.")
    model = endpoint.model or _learned(endpoint)
    served = [name, str(endpoint.revision), endpoint.model_dir or endpoint.model_uri, endpoint.settings]
    target = access.public_target(endpoint.model_copy(update={"model": model}))
    return Chosen(target, served, _token(store, endpoint))


def _token(store: Store, endpoint: Endpoint) -> dict[str, str]:
    """What to put into the environment for an endpoint that asks for a token, unless one is there."""
    if endpoint.front is None or not endpoint.front.guarded or os.environ.get(KEY_VARIABLE):
        return {}
    if key := endpoint_tokens.key_for(store, endpoint.name):
        return {KEY_VARIABLE: key}
    raise ServingError(
        f"endpoint.name: '{endpoint.name}' asks for a token, and no block of this Prefect holds a valid one. Run "
        f"issue-token for it, or put one into the environment variable {KEY_VARIABLE} of the worker."
    )


def _learned(endpoint: Endpoint) -> str:
    """The model's name as the server tells it: the record of an unverified endpoint may not have it."""
    try:
        return probe.identity(endpoint)
    except probe.ProbeError as error:
        raise ServingError(f"endpoint.name: '{endpoint.name}' does not say which model to ask for: {error}") from error


def load_block(name: str, parameter: str, otherwise: str = "") -> Any:
    """The OpenAI Endpoint block of that name.

    Raises:
        ConfigError: there is none; names the parameter, and what one may do `otherwise`.
    """
    try:
        return OpenAIEndpoint.load(name)
    except ValueError as error:
        raise ConfigError(
            f"{parameter}: there is no OpenAI Endpoint block '{name}'. Make one in the Prefect UI under "
            f"Blocks{otherwise}."
        ) from error


@contextmanager
def in_environment(secrets: dict[str, str]) -> Iterator[None]:
    """Have the secrets in this process's environment for so long."""
    os.environ.update(secrets)
    try:
        yield
    finally:
        for name in secrets:
            os.environ.pop(name, None)
