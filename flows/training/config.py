"""Parameters of the two training stages. Defaults are the article's run of gemma-2-2b-it."""

from __future__ import annotations

import importlib.util
from typing import Literal

from pydantic import Field

from flows.config import Config

TargetModule = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ALL_PROJECTIONS: list[TargetModule] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STOP_FILE = "stop.txt"  # in the working folder: asks a training to stop, and says why


class LoraSection(Config):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685). Used by the methods lora and qlora."""

    r: int = Field(default=256, ge=1, le=1024, title="Rank", description="Rank of the adapters, 1 to 1024.")
    alpha: float = Field(
        default=32,
        gt=0,
        title="Alpha",
        description="The adapters' weight is alpha / rank (alpha / sqrt(rank) with rsLoRA).",
    )
    dropout: float = Field(default=0.05, ge=0, lt=1, title="Dropout", description="On the adapters' input, 0 to 1.")
    rslora: bool = Field(default=False, title="rsLoRA", description="Scale by alpha / sqrt(rank) (arXiv 2312.03732).")
    target_modules: list[TargetModule] = Field(
        default=ALL_PROJECTIONS, min_length=1, title="Adapted layers", description="Which projections get adapters."
    )


class QLoraSection(Config):
    """4-bit base weights under LoRA adapters (Dettmers et al. 2023, arXiv 2305.14314). Used by the method qlora."""

    double_quantization: bool = Field(
        default=True, title="Double quantisation", description="Quantise the quantisation constants too: 0.4 bit less."
    )


class TrainingSection(Config):
    """What both training stages have in common."""

    lora: LoraSection = Field(default=LoraSection(), title="LoRA", description="Used by the methods lora and qlora.")
    epochs: float = Field(
        default=3, gt=0, le=1000, title="Epochs", description="Passes over the data; may be a fraction."
    )
    learning_rate: float = Field(default=2e-4, gt=0, lt=1, title="Learning rate", description="At its peak.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="linear", title="Schedule", description="How the learning rate falls after the warm-up."
    )
    warmup_steps: int = Field(
        default=2,
        ge=0,
        title="Warm-up (steps)",
        description="Steps until the peak; a quarter of all at most.",
    )
    batch_size: int = Field(
        default=2, ge=1, le=4096, title="Batch (sequences)", description="On one device, for one forward pass."
    )
    accumulation: int = Field(
        default=4, ge=1, le=4096, title="Accumulation", description="Forward passes for one optimizer step."
    )
    max_length: int = Field(
        default=1024,
        ge=32,
        le=131072,
        title="Sequence length (tokens)",
        description="Longer rows are left out and counted.",
    )
    packing: bool = Field(
        default=True,
        title="Packing",
        description="Put several rows in one sequence, each seeing only itself: no padding is computed.",
    )
    activation_checkpointing: bool = Field(
        default=False, title="Activation checkpointing", description="Less memory for about a fifth more time."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", title="Precision", description="auto: bfloat16 on a GPU that has it, float32 on a CPU."
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        default="auto",
        title="Attention",
        description="auto: FlashAttention 2 where installed, else the model's default.",
    )
    merged_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        title="Stored weights",
        description="Adapters are always merged in float32; bfloat16 halves the file and rounds small updates.",
    )
    checkpoint_steps: int = Field(
        default=100, ge=1, title="Checkpoint every (steps)", description="A killed run goes on from the newest one."
    )
    log_steps: int = Field(default=5, ge=1, title="Log every (steps)", description="Points of the loss plot.")
    threads: int = Field(
        default=0, ge=0, le=1024, title="CPU threads", description="For training on a CPU; 0: what torch chooses."
    )
    seed: int = Field(default=42, ge=0, title="Seed", description="Of adapters, order and dropout.")
    report_to: Literal["none", "tensorboard", "wandb", "mlflow", "trackio"] = Field(
        default="none",
        title="Tracker",
        description="Where curves go besides the report; its package must be installed.",
    )


class PretrainConfig(TrainingSection):
    """Continual pre-training on the field's plain text (DAPT), with LoRA, merged into full weights."""

    enabled: bool = Field(default=True, title="Pre-train", description="Off: fine-tuning starts from the base model.")
    lora: LoraSection = Field(default=LoraSection(r=128), title="LoRA", description="Adapters of the pre-training.")
    epochs: float = Field(default=1, gt=0, le=1000, title="Epochs", description="Passes over the texts.")
    max_length: int = Field(
        default=1024,
        ge=32,
        le=131072,
        title="Sequence length (tokens)",
        description="Longer texts are cut at sentences.",
    )


class FinetuneConfig(TrainingSection):
    """Supervised fine-tuning on question/answer rows (SFT), loss on the answer only."""

    method: Literal["lora", "qlora", "full"] = Field(
        default="lora",
        title="Method",
        description="lora: adapters on full weights. qlora: adapters on 4-bit weights. full: all weights.",
    )
    qlora: QLoraSection = Field(default=QLoraSection(), title="QLoRA", description="Used by the method qlora only.")


def problems(section: TrainingSection, name: str) -> list[str]:
    """Settings that contradict each other, in words."""
    found: list[str] = []
    if isinstance(section, PretrainConfig) and not section.enabled:
        return found
    if section.lora.rslora and section.lora.alpha > section.lora.r * 4:
        found.append(
            f"{name}.lora.alpha: {section.lora.alpha:g} with rsLoRA at rank {section.lora.r} scales adapters by "
            f"{section.lora.alpha / section.lora.r**0.5:.0f}; training will diverge. Take about sqrt(rank)."
        )
    return found


def missing_packages(section: TrainingSection, name: str) -> list[str]:
    """What the settings need and this machine, which is to train, does not have, in words."""
    found: list[str] = []
    if isinstance(section, PretrainConfig) and not section.enabled:
        return found
    if section.report_to != "none" and importlib.util.find_spec(section.report_to) is None:
        found.append(f"{name}.report_to: {section.report_to} is not installed here. Install it, or take none.")
    if section.attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        found.append(f"{name}.attention: flash_attention_2 needs the package flash-attn and a GPU. Take auto.")
    return found
