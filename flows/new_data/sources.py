"""Where the data of a deployment lies, read from its parameters."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from flows.corpus.sources.registry import READERS, Sources, in_folder
from flows.errors import ConfigError

SAMPLE = "sample:"


def places_of(parameters: dict[str, Any], deployment: str) -> list[str]:
    """The paths of its `sources`, in its data folder; the folder itself where no path is named, as in a pipeline.

    Raises:
        ConfigError: its data is none that can change, or its parameters are wrong.
    """
    try:
        sources = Sources.model_validate(parameters.get("sources") or {})
    except ValidationError as error:
        raise ConfigError(f"deployment: the sources of {deployment} are wrong: {error}") from error
    paths = [source.path for kind in READERS for source in getattr(sources, kind)]
    paths += [sources.templates] if sources.templates else []
    found = [in_folder(path, sources.folder) for path in paths] or ([sources.folder] if sources.folder else [])
    own = [place for place in found if not place.startswith(SAMPLE)]
    if not own:
        raise ConfigError(
            f"places: {deployment} names no data that can change"
            f"{', only samples' if found else ''}. Put your own sources into it, or name folders here."
        )
    return list(dict.fromkeys(own))
