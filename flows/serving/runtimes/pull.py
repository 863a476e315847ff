"""A pull that nobody waits for: a process of its own, so that a pass of the watcher ends and the next one looks again.

python -m flows.serving.runtimes.pull SOCKET IMAGE
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flows.errors import FinetuneError, ServingError
from flows.progress import silent
from flows.serving.causes import last_lines
from flows.serving.endpoint import ProcessRecord
from flows.serving.runtimes import engine, process
from flows.serving.variants.launch import Launch, NotYetError
from flows.store.files import read_json, write_json

if TYPE_CHECKING:
    from docker import APIClient

BUDGET_S = 3600.0  # a pull that stalls must end some time, or the endpoint waits for it for ever


def ensure(client: APIClient, socket: str, image: str, folder: Path) -> None:
    """Nothing if the engine has the image; else its pull is started beside us, unless it is under way already.

    Args:
        client: of the engine.
        socket: the engine's.
        image: name with tag.
        folder: for log and record of the pull.

    Raises:
        NotYetError: it is being pulled.
        ServingError: the pull that was under way has failed; the next call starts another one.
    """
    base = folder / f"pull-{hashlib.sha256(f'{socket} {image}'.encode()).hexdigest()[:16]}"
    record, log = base.with_suffix(".json"), base.with_suffix(".log")
    found = read_json(record)
    if found and process.alive(ProcessRecord.model_validate(found)):
        raise NotYetError(f"Its image {image} is being pulled.")
    record.unlink(missing_ok=True)
    if engine.has_image(client, image):
        return
    if found:
        raise ServingError("\n".join(last_lines(log, 5)) or f"The pull of {image} was killed.")
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "flows.serving.runtimes.pull", socket, image]
    here = {"PYTHONPATH": str(Path(__file__).parents[3])}  # of this checkout: the process starts in another folder
    pull = process.start(Launch(command=command, env=here, model="", ready_path=""), log)
    write_json(record, pull.model_dump())
    raise NotYetError(f"Its image {image} is not on this machine and is being pulled.")


def main(socket: str, image: str) -> int:
    """Pull it; 0, or 1 with the reason on stderr."""
    try:
        with engine.connect(socket, timeout_s=300) as client:
            engine.fetch_image(client, image, silent, BUDGET_S)
    except FinetuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
