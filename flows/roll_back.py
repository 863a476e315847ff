"""Take an endpoint back to a former revision by hand, or by an automation."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.states import Completed
from pydantic import Field

from flows.errors import FinetuneError
from flows.serving import roll_back as rolling
from flows.serving.names import NAME
from flows.stages.endpoints import failed, refresh_page, remember
from flows.stages.external import load_keys
from flows.stages.run_context import RunOptions, current_run


@flow(name="roll-back")
def roll_back(
    name: Annotated[str, Field(pattern=NAME)],
    to: Annotated[int, Field(ge=0)] = 0,
    store: str = "",
    instead_of: Annotated[int, Field(ge=0)] = 0,
) -> Any:
    """Start a former revision beside the current one and move the name to it once it has answered.

    Args:
        name: Name of the endpoint.
        to: Number of the revision; 0 means the one before the current one.
        store: Folder for models and endpoints. Empty means FINETUNE_STORE of the environment.
        instead_of: Number of the revision that is to be left: nothing is done if another one serves by then. 0 means
            whichever serves.
    """
    context = current_run(RunOptions(store=store))
    try:
        load_keys(context.store.endpoints, name)
        endpoint = rolling.roll_back(
            name,
            context.store.endpoints,
            to or None,
            context.progress("roll-back"),
            instead_of=instead_of,
            run_id=context.run_id,
            run_url=context.run_url,
        )
    except FinetuneError as error:
        return failed(error)
    remember(endpoint)
    refresh_page(context.store)
    what = f"{name} serves {endpoint.model} again"
    words = f"{what}: {endpoint.state.value} at {endpoint.public_url}, revision {endpoint.revision}."
    return Completed(message=words)
