"""What stands in a variant's place where nothing is started: how a server that runs already is known to be well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.serving.variants.launch import Launch, Place

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig


def problems(config: ServeConfig, container: bool) -> list[str]:
    """Nothing: the variant's own options are not used."""
    return []


def check_folder(config: ServeConfig, folder: Path) -> None:
    """Nothing: the folder, if any is given, is not what is served from."""


def launch(config: ServeConfig, place: Place) -> Launch:
    """No command; without a name the first model that the server lists is taken."""
    options = config.external
    model = config.served_model_name.replace("{model_path}", place.model_path)
    return Launch(
        command=None,
        env={},
        model=model,
        ready_path=options.health_path,
        identity="id" if model else "none",
        startup_budget_s=120,
    )
