"""A file of questions through an endpoint: every row gets a reply, a killed run goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed
from pydantic import Field

from flows.endpoint_client.generation import generate
from flows.endpoint_client.request import BatchOptions
from flows.endpoint_client.rows import read_requests
from flows.endpoint_client.target import check
from flows.errors import ConfigError, FinetuneError, OutOfDiskError, is_disk_full
from flows.reporting.generation import generation_line, generation_markdown
from flows.stages.endpoint_target import EndpointChoice, find_target, in_environment
from flows.stages.endpoints import failed
from flows.stages.external import load_keys
from flows.stages.run_context import RunContext, RunOptions, current_run
from flows.store.digest import value_digest
from flows.store.locks import locked


@flow(name="generate-with-endpoint")
def generate_with_endpoint(
    endpoint: EndpointChoice,
    rows: Annotated[str, Field(min_length=1)],
    output: str = "",
    options: BatchOptions = BatchOptions(),
    store: str = "",
) -> Any:
    """Ask an endpoint every question of a file and write the replies beside the questions, in their order.

    Args:
        endpoint: Which endpoint is asked.
        rows: CSV, TSV, JSON lines or Parquet file with messages, question (and instruction) or prompt in each row.
        output: File for the replies, JSON lines. Empty means generations/<key>/replies.jsonl in the store.
        options: How many at a time, how long the replies, what is asked again.
        store: Folder for models and endpoints. Empty means FINETUNE_STORE of the environment.
    """
    try:
        context = current_run(RunOptions(store=store), field="store")
        line = _generate(context, endpoint, rows, output, options)
    except FinetuneError as error:
        return failed(error)
    except OSError as error:
        if not is_disk_full(error):
            raise
        return failed(OutOfDiskError(f"The disk is full: {error}. Free some space and run again."))
    return Completed(message=line)


def _generate(context: RunContext, choice: EndpointChoice, rows: str, output: str, options: BatchOptions) -> str:
    requests = read_requests(rows, "rows")
    load_keys(context.store.endpoints)
    chosen = find_target(context.store, choice)
    asked = [request.model_dump() for request in requests]
    key = value_digest([chosen.identity, asked, options.max_tokens, options.temperature])[:24]
    folder = context.store.generations / key
    place = _place(output, rows) if output else folder / "replies.jsonl"
    lock = context.store.locks / f"generate-{key}"
    with (
        in_environment(chosen.secrets),
        locked(lock, lambda: context.logger.info("Another run asks the same; waiting."), pause=context.pause),
    ):
        check(chosen.target)
        progress = context.progress("generate")
        found, completions = generate(chosen.target, requests, options, folder / "kept.jsonl", place, progress)
    line = generation_line(found)
    create_markdown_artifact(generation_markdown(found, requests, completions), key="replies", description=line)
    return line


def _place(output: str, rows: str) -> Path:
    """The file for the replies, tried before anything is asked."""
    place = Path(output).expanduser()
    what = "is a folder" if place.is_dir() else ""
    if place.resolve() == Path(rows).expanduser().resolve():
        what = "is where the questions are"
    if what:
        raise ConfigError(f"output: {output} {what}. Name another file.")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output: the folder {place.parent} cannot be made: {error.strerror}.") from error
    return place
