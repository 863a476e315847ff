"""The store of a run as a person names it: a folder, a bucket, or a block with the bucket's keys."""

from __future__ import annotations

import logging
import os

from prefect import get_run_logger
from prefect.exceptions import MissingContextError

from blocks.s3_store import S3Store
from flows.errors import ConfigError
from flows.store import opening
from flows.store.layout import ENVIRONMENT_VARIABLE, Store

BLOCK = "s3-store/"


def open_store(given: str, field: str = "store") -> Store:
    """A folder, `s3://bucket/prefix`, or `s3-store/NAME` of an S3 Store block; empty means FINETUNE_STORE.

    Raises:
        ConfigError: there is no such block, or there can be no such store.
    """
    place = given or os.environ.get(ENVIRONMENT_VARIABLE, "")
    if not place.startswith(BLOCK):
        return opening.open_store(given, field, say)
    from flows.store.bucket.address import Access, address
    from flows.store.bucket.shared import SharedStore

    field = field if given else ENVIRONMENT_VARIABLE
    block = _block(place.removeprefix(BLOCK), field)
    access = Access(block.endpoint_url, block.key_id, block.secret, block.region)
    location = block.location if block.location.startswith("s3://") else f"s3://{block.location}"
    return SharedStore(address(location, f"{field}: {place}", access), field, say)


def say(words: str) -> None:
    """Into the log of the run that is under way, if there is one."""
    try:
        get_run_logger().warning(words)
    except MissingContextError:
        logging.getLogger(__name__).warning(words)


def _block(name: str, field: str) -> S3Store:
    try:
        found: S3Store = S3Store.load(name)  # type: ignore[assignment]
    except ValueError as error:
        raise ConfigError(
            f"{field}: there is no S3 Store block '{name}'. Make it in the Prefect UI under Blocks, or write "
            "s3://bucket/prefix and give the keys to the workers' environment."
        ) from error
    return found
