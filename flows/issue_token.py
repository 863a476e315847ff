"""A token for an endpoint whose front asks for one."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.states import Completed
from pydantic import Field

from flows.errors import FinetuneError
from flows.serving.front import tokens
from flows.serving.names import NAME
from flows.stages import endpoint_tokens
from flows.stages.endpoints import failed
from flows.stages.opening import open_store


@flow(name="issue-token")
def issue_token(
    name: Annotated[str, Field(pattern=NAME)],
    token_name: Annotated[str, Field(pattern=NAME)],
    days: Annotated[int, Field(ge=0, le=tokens.MOST_DAYS)] = 90,
    block: Annotated[str, Field(pattern=r"^([0-9a-z][0-9a-z-]{0,126})?$")] = "",
    store: str = "",
) -> Any:
    """Make a token and write it into an OpenAI Endpoint block, which is the only place that has it.

    Args:
        name: Name of the endpoint.
        token_name: What the token is called, as who gets it; letters a to z, digits and dashes.
        days: Days for which it is valid; 0 means until it is revoked.
        block: Name of the block. Empty means the endpoint's and the token's name with a dash between them.
        store: Folder for models and endpoints. Empty means FINETUNE_STORE of the environment.
    """
    try:
        written = endpoint_tokens.issue(open_store(store), name, token_name, days, block)
    except FinetuneError as error:
        return failed(error)
    until = f"for {days} days" if days else "until it is revoked"
    words = f"Token '{token_name}' of {name} is in the OpenAI Endpoint block '{written}', valid {until}."
    return Completed(message=words)
