"""Servers of somebody else whose address and key lie in an OpenAI Endpoint block: from its name to the environment."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from flows.errors import ConfigError, ServingError
from flows.serving import records, revisions
from flows.serving.config import ServeConfig
from flows.serving.endpoint import ExternalRecord
from flows.stages.endpoint_target import load_block

PARAMETER = "serve.external.block"

logger = logging.getLogger(__name__)


def with_block(config: ServeConfig) -> ServeConfig:
    """The settings with address, model and key variable of the block they name, if any; the key is in the environment.

    Raises:
        ConfigError: there is no such block.
    """
    options = config.external
    if config.runtime != "external" or not options.block:
        return config
    block = load_block(options.block, PARAMETER)
    values = {"url": options.url or block.base_url, "key_variable": _keep_key(options.block, block)}
    model = config.served_model_name or block.model
    return config.model_copy(update={"external": options.model_copy(update=values), "served_model_name": model})


def load_keys(endpoints_dir: Path, name: str = "") -> None:
    """Put the keys of all endpoints that have a block into the environment, those of `name`'s kept revisions too.

    A block that is gone, or a damaged revision, is logged: who asks that endpoint will say that its key is missing.
    """
    found = [records.readable(endpoints_dir, one) for one in records.names(endpoints_dir)]
    blocks = {one.process.block for one in found if one and isinstance(one.process, ExternalRecord)}
    for number in revisions.numbers(endpoints_dir, name) if name else []:
        try:
            blocks.add(revisions.load(endpoints_dir, name, number).config.external.block)
        except ServingError as error:
            logger.error("%s", error)
    for block in sorted(blocks - {""}):
        try:
            _keep_key(block, load_block(block, PARAMETER))
        except ConfigError as error:
            logger.error("%s", error)
        except Exception as error:  # of whatever client: others are looked at all the same
            logger.error("The key of the OpenAI Endpoint block '%s' could not be read: %s", block, error)


def _keep_key(name: str, block: object) -> str:
    """The environment variable in which the block's key now is; empty if it has none."""
    key = block.api_key.get_secret_value()  # type: ignore[attr-defined]
    variable = f"FINETUNE_BLOCK_{name.upper().replace('-', '_')}_API_KEY"
    if not key:
        return ""
    os.environ[variable] = key
    return variable
