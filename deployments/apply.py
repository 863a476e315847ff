"""`make deploy`: everything this project has on a Prefect server: work pools, block types, deployments, automations.

The server is the one PREFECT_API_URL names. Applied as often as one likes; a work pool that is there is left as it is.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from inspect import getmembers, isclass
from pathlib import Path

import httpx
import yaml
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

import blocks
from deployments import automations, stage_deployments
from flows.errors import ConfigError, FinetuneError

CHECKOUT = Path(__file__).parents[1]
RUNS_AT_ONCE = 6  # in a new work queue; a server with SQLite refuses requests where many more start at once


def apply() -> list[str]:
    """Apply all of it.

    Returns:
        What was done, a line each.

    Raises:
        ConfigError: no server is named, or the notification block is not there.
        FinetuneError: Prefect refused; holds what it said.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise ConfigError(
            "PREFECT_API_URL is not set, so it is not known where to deploy to. For the demo's own Prefect: "
            'eval "$(.venv/bin/python -m deployments.local env)"'
        )
    try:
        lines = [*work_pools(), *block_types(), *deploy(), *stage_deployments.apply()]
        return [*lines, *automations.apply(os.environ.get(automations.VARIABLE, ""))]
    except httpx.HTTPError as error:
        raise FinetuneError(
            f"The Prefect server at {url} does not answer as one: {error or type(error).__name__}."
        ) from error


def work_pools() -> list[str]:
    """Create the work pools and queues that prefect.yaml names and the server lacks, for processes; a line each.

    A stage that has a run of its own, and what is about endpoints, waits in no such queue.
    """
    stanzas = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text("utf-8"))["deployments"]
    wanted = {(stanza["work_pool"]["name"], stanza["work_pool"].get("work_queue_name", "")) for stanza in stanzas}
    lines = []
    with get_client(sync_client=True) as client:
        for name in sorted({name for name, _ in wanted}):
            try:
                client.read_work_pool(name)
            except ObjectNotFound:
                client.create_work_pool(WorkPoolCreate(name=name, type="process"))
                lines.append(f"created: work pool {name} (process)")
        for name, queue in sorted((name, queue) for name, queue in wanted if queue):
            try:
                client.read_work_queue_by_name(queue, work_pool_name=name)
            except ObjectNotFound:
                client.create_work_queue(queue, work_pool_name=name, concurrency_limit=RUNS_AT_ONCE)
                lines.append(f"created: work queue {queue} of {name}, {RUNS_AT_ONCE} runs at a time")
    return lines


def block_types() -> list[str]:
    """Register every block type in `blocks/`; a line each."""
    lines = []
    for module in pkgutil.iter_modules(blocks.__path__):
        found = importlib.import_module(f"blocks.{module.name}")
        for name, member in getmembers(found, isclass):
            if issubclass(member, Block) and member.__module__ == found.__name__:
                member.register_type_and_schema()
                lines.append(f"registered: block type {name}")
    return lines


def deploy() -> list[str]:
    """Apply all deployments of prefect.yaml.

    Raises:
        FinetuneError: Prefect refused; holds what it said.
    """
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    environment = os.environ | {"PWD": str(CHECKOUT)}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise FinetuneError(f"prefect deploy --all failed:\n{done.stdout}{done.stderr}")
    return ["applied: the deployments of prefect.yaml"]


if __name__ == "__main__":
    try:
        print("\n".join(apply()))
    except FinetuneError as error:
        sys.exit(str(error))
