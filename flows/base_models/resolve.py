"""From a model's name to a folder that transformers can load, and an identity for cache keys."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from flows.base_models import packaged, tiny
from flows.config import Config
from flows.errors import ModelError
from flows.progress import Progress
from flows.store.files import name_beside


class BaseModelConfig(Config):
    """Which model to start from."""

    name: str = Field(
        title="Base model",
        description="A Hub id (google/gemma-2-2b-it), a local folder, packaged:SmolLM2-135M-Instruct (comes with the "
        "demo, no network) or tiny:gemma-2 / tiny:llama-3 (random, for trying things out).",
        min_length=1,
    )
    revision: str = Field(
        default="",
        title="Revision",
        description="Hub only: branch, tag or commit. Empty means the newest; the commit used is recorded.",
    )


class ResolvedModel(Config):
    """A loadable folder and what it holds: `identity` changes when the weights do.

    `source` is how another machine comes by the same model: its name, of a Hub model with the commit.
    """

    path: str
    identity: str
    source: BaseModelConfig


COMMIT = re.compile("[0-9a-f]{40}")
KINDS = {"packaged": packaged, "tiny": tiny}


def identity(config: BaseModelConfig) -> str:
    """What the model is, cheaply: no weights are read or fetched for packaged, tiny and already cached Hub models.

    Raises:
        ModelError: there is no such model; the message says what was looked for and where.
    """
    kind, _, rest = config.name.partition(":")
    if kind in KINDS:
        return KINDS[kind].identity(rest)
    folder = Path(config.name).expanduser()
    if folder.is_dir():
        return _folder_identity(folder)
    return f"hub:{config.name}@{_hub_commit(config)}"


def resolve(config: BaseModelConfig, models_dir: Path) -> ResolvedModel:
    """Make the model loadable from a local folder; packaged and tiny ones are converted once, below `models_dir`.

    Raises:
        ModelError: there is no such model, or it has no chat template.
    """
    return _resolved(config, identity(config), models_dir)


def _resolved(config: BaseModelConfig, name: str, models_dir: Path) -> ResolvedModel:
    """As `resolve`, for an identity that is known: that of a folder takes reading all of it."""
    kind, _, rest = config.name.partition(":")
    if kind in KINDS:
        path = _converted(name, models_dir)
        if not (path / "complete.json").exists():
            _convert(KINDS[kind], rest, path, name)
    elif Path(config.name).expanduser().is_dir():
        path = Path(config.name).expanduser().resolve()
    else:
        path = _download(config, name.rpartition("@")[2])
    require_chat_template(path, config.name)
    return ResolvedModel(path=str(path), identity=name, source=pinned(config, name))


def ready(config: BaseModelConfig, models_dir: Path) -> ResolvedModel | None:
    """The model, if it can be loaded at once: a folder, or one that has been converted before.

    Raises:
        ModelError: there is no such model, or it has no chat template.
    """
    kind, _, _ = config.name.partition(":")
    name = identity(config)
    if kind in KINDS:
        there = (_converted(name, models_dir) / "complete.json").exists()
    else:
        there = Path(config.name).expanduser().is_dir()
    return _resolved(config, name, models_dir) if there else None


def pinned(config: BaseModelConfig, name: str) -> BaseModelConfig:
    """The same model for ever and from everywhere, by its identity: a Hub model's commit, a folder's whole path."""
    if name.startswith("hub:"):
        return config.model_copy(update={"revision": name.rpartition("@")[2]})
    if name.startswith("folder:"):
        return config.model_copy(update={"name": str(Path(config.name).expanduser().absolute())})
    return config


def _converted(name: str, models_dir: Path) -> Path:
    return models_dir / name.replace("==", "-")


def run(config: BaseModelConfig, inputs: Mapping[str, Path], workdir: Path, progress: Progress) -> dict[str, Any]:
    """`resolve` in the shape of a stage's work: converting or downloading below `workdir`."""
    progress(0, 1, f"preparing {config.name}")
    found = resolve(config, workdir)
    progress(1, 1, f"{config.name} is ready")
    return found.model_dump()


def require_chat_template(path: Path, name: str) -> None:
    """Refuse a model that cannot chat, before anything is trained.

    Raises:
        ModelError: no chat template in the tokenizer's files.
    """
    config = path / "tokenizer_config.json"
    inline = config.exists() and "chat_template" in json.loads(config.read_text("utf-8"))
    if not (inline or (path / "chat_template.jinja").exists() or (path / "chat_template.json").exists()):
        raise ModelError(
            f"The base model '{name}' has no chat template (looked for chat_template.jinja and tokenizer_config.json "
            f"in {path}). Take the instruction-tuned version of the model, or put a chat_template.jinja beside it."
        )


def _convert(kind: Any, rest: str, path: Path, name: str) -> None:
    """Write the model beside its place and rename, so that a reader never sees half of one."""
    for left in path.parent.glob(f".{path.name}.*"):  # by a start that was killed; the caller holds a lock
        shutil.rmtree(left, ignore_errors=True)
    written = name_beside(path)
    try:
        model, tokenizer = kind.load(rest)
        model.save_pretrained(written)
        tokenizer.save_pretrained(written)
        (written / "complete.json").write_text(json.dumps({"identity": name}))
        if not path.exists():
            written.rename(path)
    finally:
        shutil.rmtree(written, ignore_errors=True)


def _folder_identity(folder: Path) -> str:
    from flows.store.digest import folder_digest

    if not (folder / "config.json").exists():
        raise ModelError(f"The folder {folder} holds no config.json, so it is no transformers model.")
    return f"folder:{folder_digest(folder)}"


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}


def _hub_commit(config: BaseModelConfig) -> str:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    revision, cached = config.revision or "main", None
    try:
        cached = try_to_load_from_cache(config.name, "config.json", revision=revision)
        # Of a commit that is here the Hub could say nothing else, and each stage elsewhere would ask it.
        known = isinstance(cached, str) and COMMIT.fullmatch(revision)
        if not (known or _offline()):
            info = HfApi().model_info(config.name, revision=revision, timeout=20)
            return str(info.sha)
    except HFValidationError as error:
        raise _unknown(config, "it is neither a folder here nor a well-formed Hub id") from error
    except HfHubHTTPError as error:
        raise _unknown(config, str(error).splitlines()[0]) from error
    except Exception as error:  # of whatever HTTP library the Hub's client uses: they differ between its versions
        if not isinstance(cached, str):
            raise _unknown(config, f"the Hub cannot be reached ({error}) and the cache does not have it") from error
    if isinstance(cached, str):
        return Path(cached).parent.name
    raise _unknown(config, "HF_HUB_OFFLINE is set and it is not in the local Hub cache")


def _download(config: BaseModelConfig, commit: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model"]
    try:
        return Path(snapshot_download(config.name, revision=commit, allow_patterns=patterns))
    except Exception as error:  # as above
        raise _unknown(config, str(error).splitlines()[0]) from error


def _unknown(config: BaseModelConfig, why: str) -> ModelError:
    at = f" at revision '{config.revision}'" if config.revision else ""
    return ModelError(
        f"model.name: no base model '{config.name}'{at}: {why}. Give a Hub id such as google/gemma-2-2b-it (gated ones "
        f"need HF_TOKEN in the environment), a folder with config.json and safetensors, or one of "
        f"{', '.join(f'packaged:{n}' for n in packaged.PACKAGED)}, {', '.join(f'tiny:{f}' for f in tiny.FAMILIES)}."
    )
