"""A store as a person names it: a folder, or `s3://bucket/prefix`."""

from __future__ import annotations

import os
from collections.abc import Callable

from flows.store.layout import ENVIRONMENT_VARIABLE, Store


def open_store(given: str, field: str = "store", say: Callable[[str], None] | None = None) -> Store:
    """The store; empty means FINETUNE_STORE of the environment. Nothing is asked of a bucket yet.

    Args:
        given: as the person wrote it.
        field: the parameter it comes from, for errors.
        say: told, in words, of what is damaged in a bucket.

    Raises:
        ConfigError: there can be no such store.
    """
    place = given or os.environ.get(ENVIRONMENT_VARIABLE, "")
    if not place.startswith("s3://"):
        return Store(given, field)
    # Imported here: a store in a folder needs no client of S3.
    from flows.store.bucket.address import address
    from flows.store.bucket.shared import SharedStore

    field = field if given else ENVIRONMENT_VARIABLE
    where = address(place, field)
    return SharedStore(where, field, say) if say else SharedStore(where, field)
