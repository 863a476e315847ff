"""Serve a former revision of a name again."""

from __future__ import annotations

from pathlib import Path

from flows.errors import ServingError
from flows.progress import Progress, silent
from flows.serving import records, revisions
from flows.serving.endpoint import Endpoint
from flows.serving.promotion import Maker, start_endpoint


def roll_back(
    name: str,
    endpoints_dir: Path,
    to: int | None = None,
    progress: Progress = silent,
    *,
    instead_of: int = 0,
    run_id: str = "",
    run_url: str = "",
) -> Endpoint:
    """Start revision `to` (None: the one before the current) beside the current one, and move the name to it.

    The name moves only when that revision is healthy; until then, and if it does not become so, the current one goes
    on serving. The roll-back is a promotion like any other and gets a number of its own, so a second one without `to`
    takes back the first. `instead_of` is the revision that is to be left, 0 whichever serves now: when another one
    serves by then, nothing is rolled back.

    Raises:
        ServingError: no such endpoint, no such revision, it serves already, another revision than `instead_of` serves,
            or its model folder is gone.
        StartError: it did not become healthy.
    """
    serving = records.load(endpoints_dir, name)
    if serving is None:
        raise records.unknown(endpoints_dir, name)
    if instead_of and serving.revision != instead_of:
        raise ServingError(
            f"{name} serves revision {serving.revision} by now, not {instead_of} any more: nothing is rolled back."
        )
    if to is None:
        before = [number for number in revisions.numbers(endpoints_dir, name) if number < serving.revision]
        if not before:
            raise ServingError(f"There is no revision of {name} before {serving.revision or 'the one that serves'}.")
        to = before[-1]
    if to == serving.revision:
        raise ServingError(f"Revision {to} is what {name} serves now. Name another one.")
    former = revisions.load(endpoints_dir, name, to)
    front = serving.front.options if serving.front else former.config.front  # the address stays
    return start_endpoint(
        former.config.model_copy(update={"front": front}),
        Path(former.model_dir),
        endpoints_dir,
        progress,
        Maker(run_id, run_url, former.model_uri, former.evaluation, again=to, instead_of=serving.revision),
    )
