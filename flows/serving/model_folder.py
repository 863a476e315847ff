"""Is a model folder whole? Looked at before a server is started on it; all that is wrong is told at once."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from flows.errors import ServingError

INDEX = "model.safetensors.index.json"
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
# What a trainer leaves beside the weights; no server loads it.
TRAINER_STATE = re.compile(r"^(training_args\.bin|(optimizer|scheduler|scaler|rng_state.*)\.(bin|pt|pth))$")
SHARD = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.safetensors$")
MAX_HEADER_BYTES = 100_000_000  # as the safetensors library
MOST_PROBLEMS = 5  # of one kind that are told one by one


def check_regular(path: Path) -> None:
    """Open nothing but a file: a pipe would be waited for, without end.

    Raises:
        OSError: there is no such file, or it is none; `strerror` says so.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "It is no ordinary file", str(path))


def check_model(folder: Path, *, allow_pickle: bool = False) -> None:
    """A model in the layout of transformers: config.json and whole weights.

    Raises:
        ServingError: something is missing, torn or not allowed; a line each.
    """
    found = _config_problems(folder) + _weight_problems(folder, allow_pickle)
    if not (_weights(folder) or any(folder.glob("*.safetensors")) or _pickles(folder)):
        found.append(f"{folder} holds no weights: save the model there (model.save_pretrained).")
    elif not _weights(folder) and not _pickles(folder):
        found.append(f"{folder} holds a LoRA adapter without its base model: merge it, or serve it with vllm.adapters.")
    _raise(found)


def check_weights(folder: Path, *, allow_pickle: bool = False) -> None:
    """Whatever weights the folder holds, if any, are whole and, unless allowed, no pickles.

    Raises:
        ServingError: they are not; a line each.
    """
    _raise(_weight_problems(folder, allow_pickle))


def check_adapter(folder: Path) -> None:
    """A LoRA adapter in the layout of peft.

    Raises:
        ServingError: it is not, or it is torn; a line each.
    """
    if not folder.is_dir():
        raise ServingError(f"There is no folder {folder}.")
    weights = folder / "adapter_model.safetensors"
    found = _json_problems(folder / "adapter_config.json")
    found += _safetensors_problems(weights) if weights.exists() else [f"{weights} is missing."]
    _raise(found)


def check_gguf(folder: Path, name: str = "") -> None:
    """A GGUF file, the named one or any.

    Raises:
        ServingError: there is none, or it is none.
    """
    files = [folder / name] if name else gguf_files(folder)[:1]
    if not files or files[0].name not in os.listdir(folder) or not files[0].is_file():
        raise ServingError(
            f"{folder} holds no {name or '*.gguf file'}. llama.cpp reads GGUF: convert the model with its "
            "convert_hf_to_gguf.py, or choose another variant."
        )
    try:
        with files[0].open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise ServingError(f"{files[0]} cannot be read: {error.strerror}.") from error
    if magic != b"GGUF":
        raise ServingError(f"{files[0]} is no GGUF file (it starts with {magic!r}). {_pointer(files[0])}".rstrip())


def gguf_files(folder: Path) -> list[Path]:
    """The folder's GGUF files by name; of a split one the first part comes first."""
    return sorted(folder.glob("*.gguf"))


def _raise(problems: list[str]) -> None:
    if problems:
        raise ServingError("\n".join(problems))


def _weights(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_")]


def _pickles(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICKLES and not TRAINER_STATE.match(p.name))


def _weight_problems(folder: Path, allow_pickle: bool) -> list[str]:
    found = []
    if not allow_pickle:
        found = [
            f"{path} is a Python pickle: loading it can run any code. Save the model as safetensors "
            "(model.save_pretrained), or set serve.allow_pickle if the file is yours."
            for path in _pickles(folder)
        ]
    found += _shard_problems(folder)
    for path in sorted(folder.glob("*.safetensors")):
        found += _safetensors_problems(path)
    return found


def _config_problems(folder: Path) -> list[str]:
    path = folder / "config.json"
    if (folder / "adapter_config.json").exists() and not path.exists():
        return []  # said better by who looks at the weights
    return _json_problems(path)


def _json_problems(path: Path) -> list[str]:
    try:
        check_regular(path)
        held: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return [f"{path} is missing."]
    except (OSError, ValueError, RecursionError) as error:
        return [f"{path} cannot be read: {_why(error)}."]
    return [] if isinstance(held, dict) else [f"{path} holds no JSON object."]


def _shard_problems(folder: Path) -> list[str]:
    """Shards that the index or the other shards' names tell of and that are not there."""
    present = {path.name for path in folder.iterdir()}
    families = {(match[1], match[3]): name for name in sorted(present) if (match := SHARD.match(name))}
    expected: dict[str, str] = {}
    for (stem, count), name in families.items():
        names = (f"{stem}-{number:05d}-of-{count}.safetensors" for number in range(1, int(count) + 1))
        expected |= dict.fromkeys(names, f"{name} is one of {int(count)}")
    index = folder / INDEX
    if index.exists():
        try:
            check_regular(index)
            named = set(json.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return [f"{index} is no index of weights: {_why(error)}."]
        odd = sorted(str(name) for name in named if not isinstance(name, str) or Path(name).name != name)
        if odd:
            return [f"{index} names {odd[0][:200]!r}, which is no file of this folder."]
        expected |= dict.fromkeys(named, f"{INDEX} names it")
    missing = sorted(name for name in expected if name not in present or not (folder / name).exists())
    found = [f"{folder / n} is missing, though {expected[n]}. Copy the folder again." for n in missing[:MOST_PROBLEMS]]
    more = len(missing) - MOST_PROBLEMS
    return [*found, f"{more} more files of {folder} are missing."] if more > 0 else found


def _safetensors_problems(path: Path) -> list[str]:
    """A safetensors file is as long as its header says: 8 bytes of length, a JSON header, the tensors."""
    try:
        check_regular(path)
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > MAX_HEADER_BYTES:
                return [f"{path} is no safetensors file. {_pointer(path)}".rstrip()]
            if size < 8 + length:
                return [f"{path} is torn: it ends within its header. Copy it again."]
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except OSError as error:
        hint = " A broken link?" if isinstance(error, FileNotFoundError) else ""
        return [f"{path} cannot be read: {error.strerror}.{hint}"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError):
        return [f"{path} is no safetensors file: its header cannot be read."]
    if size == whole:
        return []
    return [f"{path} is {'torn' if size < whole else 'too long'}: {size} of {whole} bytes. Copy it again."]


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(getattr(error, "strerror", None) or error or type(error).__name__).rstrip(".")


def _pointer(path: Path) -> str:
    with path.open("rb") as stream:
        pointer = stream.read(40).startswith(b"version https://git-lfs")
    return "It is a Git LFS pointer: run `git lfs pull` where it comes from." if pointer else ""
