"""Small folders that look like models, down to the bytes that are checked."""

import json
from pathlib import Path


def safetensors(path: Path, values: int = 4) -> Path:
    """A real safetensors file with one tensor of `values` bytes."""
    header = {"__metadata__": {"format": "pt"}, "w": {"dtype": "U8", "shape": [values], "data_offsets": [0, values]}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(values))
    return path


def model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    safetensors(folder / "model.safetensors")
    return folder


def sharded(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    names = [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    for name in names:
        safetensors(folder / name)
    index = {"weight_map": {f"layer.{n}": name for n, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def adapter(folder: Path, rank: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank}))
    safetensors(folder / "adapter_model.safetensors")
    return folder
