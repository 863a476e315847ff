"""Take back a token of an endpoint."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.states import Completed
from pydantic import Field

from flows.errors import FinetuneError
from flows.serving.names import NAME
from flows.stages import endpoint_tokens
from flows.stages.endpoints import failed
from flows.stages.opening import open_store


@flow(name="revoke-token")
def revoke_token(
    name: Annotated[str, Field(pattern=NAME)], token_name: Annotated[str, Field(pattern=NAME)], store: str = ""
) -> Any:
    """Have the endpoint refuse a token from the next request on, and delete the block that holds it.

    Args:
        name: Name of the endpoint.
        token_name: What the token is called.
        store: Folder for models and endpoints. Empty means FINETUNE_STORE of the environment.
    """
    try:
        revoked = endpoint_tokens.revoke(open_store(store), name, token_name)
    except FinetuneError as error:
        return failed(error)
    return Completed(message=f"Token '{token_name}' of {name} was revoked at {revoked.revoked}.")
