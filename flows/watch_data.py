"""One look at the data of a deployment, for a schedule: new data that nobody writes any more starts a run of it."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.states import Completed
from pydantic import Field

from flows.errors import FinetuneError
from flows.new_data import change as changes
from flows.new_data.files import look
from flows.new_data.sources import places_of
from flows.stages.endpoints import failed
from flows.stages.new_data import emit, parameters_of, start, turned_away
from flows.stages.opening import open_store


@flow(name="watch-data")
def watch_data(
    deployment: str,
    places: list[str] = [],
    settle_s: Annotated[float, Field(gt=0, le=3600)] = 10.0,
    longest_s: Annotated[float, Field(ge=0, le=86400)] = 300.0,
    store: str = "",
) -> Any:
    """Look at the data of a deployment; if it has changed since the last look, wait until it is whole, start a run.

    Args:
        deployment: What is started, as FLOW/NAME, with its own parameters.
        places: Folders, files or patterns, also s3:// and other addresses. Empty means the sources of the deployment.
        settle_s: Seconds between two looks; data that is the same in both is not being written any more.
        longest_s: Seconds to wait for that at most; then the next run of this flow looks again.
        store: Folder in which the last state is kept. Empty means FINETUNE_STORE of the environment.
    """
    logger = get_run_logger()
    try:
        parameters = parameters_of(deployment)
        where = places or places_of(parameters, deployment)
        file = open_store(store).watch(changes.watch_name(deployment, where))
        last = changes.load(file, deployment, where)
        files = look(where)
        again = turned_away(last)
        if changes.same_at_a_glance(files, last) and not again:
            return Completed(message=_nothing(last))
        why = f"{last.run_name} was not begun, since another run was under way" if again else "Something has changed"
        logger.info("%s. Waiting until nobody writes in %s.", why, ", ".join(where))
        files, moving = changes.settled(where, files, settle_s, longest_s)
        if moving:
            words = f"Still being written after {longest_s:g} s, so nothing is started yet: {', '.join(moving[:5])}."
            return Completed(message=words)
        if not files:
            return Completed(message=f"There is no file in {', '.join(where)}, so nothing is started.")
        change = changes.compare(files, last)
        if change.digest == last.digest and not again:
            changes.save(file, last.model_copy(update={"files": change.files}))
            return Completed(message=f"Only times have changed, no content. {_nothing(last)}")
        started = start(last, change)
        changes.save(file, started)
        emit(started, change)
    except (FinetuneError, OSError) as error:
        return failed(error)
    return Completed(message=f"{change.words or why}: started {deployment} as {started.run_name}.")


def _nothing(last: changes.Watched) -> str:
    if not last.run_name:
        return "There is no data yet, so nothing is started."
    count = len(last.files)
    return f"Nothing new in {count} file{'' if count == 1 else 's'} since {last.run_name} ({last.time})."
