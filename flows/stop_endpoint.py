"""Stop an endpoint by hand."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.states import Completed
from pydantic import Field

from flows.errors import FinetuneError
from flows.serving import records, stop
from flows.serving.names import NAME
from flows.stages.endpoints import failed, forget, refresh_page
from flows.stages.opening import open_store


@flow(name="stop-endpoint")
def stop_endpoint(name: Annotated[str, Field(pattern=NAME)], store: str = "") -> Any:
    """End the server of an endpoint and everything that server started; nothing starts it again.

    Args:
        name: Name of the endpoint.
        store: Folder for models and endpoints. Empty means FINETUNE_STORE of the environment.
    """
    try:
        place = open_store(store)
        stopped = stop.stop_endpoint(name, place.endpoints)
        if stopped is None:
            raise records.unknown(place.endpoints, name)
    except FinetuneError as error:
        return failed(error)
    forget(name)
    refresh_page(place)
    return Completed(message=f"{name}: {stopped.state.words} {stopped.why}")
