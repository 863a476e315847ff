"""Which model to serve, as a person names it: a folder, a run, or an artifact of the store."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, ValidationError

from flows.config import Config
from flows.errors import ConfigError, ServingError
from flows.reporting.contract import RunReport
from flows.serving.config import ServeConfig
from flows.store.artifacts import Artifact, damage
from flows.store.files import read_json
from flows.store.layout import MANIFEST, Store


class ModelSource(Config):
    """Where the model is; fill in exactly one of the three."""

    folder: str = Field(
        default="",
        title="Model folder",
        description="Folder of a saved model on the machine that serves, as /models/trade-terms.",
    )
    run: str = Field(
        default="",
        title="Run id",
        description="Id of a flow run of domain-adaptation whose trained model is served; it stands in the run's URL.",
        pattern=r"^[A-Za-z0-9-]{0,64}$",
    )
    artifact: str = Field(
        default="",
        title="Artifact",
        description="Digest of a model in the artifact store, or its first 8 or more characters (0-9, a-f).",
        pattern=r"^([0-9a-f]{8,64})?$",
    )


def model_of(store: Store, source: ModelSource, serve: ServeConfig) -> Path:
    """The folder of the model; `Path()` if none is given and a server of somebody else is named, who has it already.

    Raises:
        ConfigError, ServingError: as `find_model`.
    """
    if serve.runtime == "external" and source == ModelSource():
        return Path()
    return find_model(store, source)


def find_model(store: Store, source: ModelSource) -> Path:
    """The folder of the model.

    Raises:
        ConfigError: none or several of the three are given.
        ServingError: there is no such run, artifact or folder in this store.
    """
    given = [name for name in ("folder", "run", "artifact") if getattr(source, name)]
    if len(given) != 1:
        what = "none is" if not given else f"{' and '.join(given)} are"
        raise ConfigError(f"model: give exactly one of folder, run and artifact; {what} given.")
    if source.folder:
        return Path(source.folder)
    return _of_run(store, source.run) if source.run else _of_artifact(store, source.artifact)


def _of_run(store: Store, run_id: str) -> Path:
    path = store.run(run_id) / "report.json"
    store.fetch_files([path])
    try:
        report = RunReport.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ServingError(
            f"model.run: the store {store.root} has no report of a run {run_id}. Give the id of a run of "
            "domain-adaptation that came as far as its report, or the store it used."
        ) from None
    except ValidationError as error:
        raise ServingError(f"model.run: {path} is no report ({error.errors()[0]['msg']}).") from error
    # The machine that wrote the report may have its store elsewhere.
    tail = re.search(r"artifacts/model/[0-9a-f]{24}$", report.trained_model_uri)
    if tail and store.fetch(tail[0]):
        return store.place(tail[0])
    return Path(report.trained_model_uri)


def _of_artifact(store: Store, digest: str) -> Path:
    store.fetch_beginning("model", digest[:24])
    folders = sorted(store.artifacts.glob(f"model/{digest[:24]}*"))
    found = [folder for folder in folders if str((read_json(folder / MANIFEST) or {}).get("digest")).startswith(digest)]
    if len(found) != 1:
        what = "no model" if not found else f"{len(found)} models"
        raise ServingError(f"model.artifact: the store {store.root} has {what} whose digest begins with {digest}.")
    whole = read_json(found[0] / MANIFEST)["digest"]
    if wrong := damage(store, Artifact(kind="model", digest=whole, path=str(found[0]))):
        raise ServingError(f"model.artifact: {found[0]} is damaged: {wrong}. Make it anew.")
    return found[0]
