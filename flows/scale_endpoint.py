"""More or fewer replicas of an endpoint, by hand or by an automation."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.states import Completed
from pydantic import Field

from flows.errors import FinetuneError
from flows.serving import scale
from flows.serving.names import NAME
from flows.stages.endpoints import failed, refresh_page, remember
from flows.stages.run_context import RunOptions, current_run


@flow(name="scale-endpoint")
def scale_endpoint(
    name: Annotated[str, Field(pattern=NAME)], replicas: Annotated[int, Field(ge=1, le=1000)], store: str = ""
) -> Any:
    """Have that many replicas of an endpoint; it goes on serving meanwhile.

    Args:
        name: Name of the endpoint.
        replicas: How many servers share its requests from now on.
        store: Folder for models and endpoints. Empty means FINETUNE_STORE of the environment.
    """
    context = current_run(RunOptions(store=store))
    try:
        endpoint, found = scale.scale(name, replicas, context.store.endpoints, context.progress("scale"))
    except FinetuneError as error:
        return failed(error)
    remember(endpoint)
    refresh_page(context.store)
    words = f"{replicas} replica{'' if replicas == 1 else 's'} from now on"
    if found is None:
        return Completed(message=f"{name}: {words}; they come and go while it serves.")
    missing = "" if found.complete else f" Not all of them answer yet; the watcher goes on with it. {found.why}"
    return Completed(message=f"{name}: {words}; {found.answering + 1} answer.{missing}")
