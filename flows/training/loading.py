"""Loading a base model for training, in the precision and with the attention that suit the machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from flows.errors import ModelError
from flows.training.config import FinetuneConfig, TrainingSection


def precision(section: TrainingSection) -> str:
    """`float32` or `bfloat16`: `auto` is bfloat16 only on a GPU that has it (on a CPU it is several times slower)."""
    import torch

    if section.precision != "auto":
        return section.precision
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def attention(section: TrainingSection) -> str | None:
    """The name for transformers, or None for the model's own default (eager for Gemma 2, which knows no sdpa)."""
    import torch

    if section.attention != "auto":
        return section.attention
    flash = importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if flash and torch.cuda.is_available() else None


def load_tokenizer(path: Path) -> Any:
    """The tokenizer, padding on the left as generation in batches needs it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_for_training(path: Path, section: TrainingSection) -> Any:
    """The model to train: full weights, or 4-bit ones for the method qlora.

    Raises:
        ModelError: the folder holds no model that transformers can load, or not with this attention.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = getattr(torch, precision(section))
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention(section)}
    if isinstance(section, FinetuneConfig) and section.method == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=section.qlora.double_quantization,
        )
        options["device_map"] = {"": 0 if torch.cuda.is_available() else "cpu"}
    try:
        return AutoModelForCausalLM.from_pretrained(path, **options)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"The model in {path} cannot be loaded for training: {error}") from error
