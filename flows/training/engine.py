"""The one training engine: TRL's SFTTrainer over rows or texts, resumable, ending in a merged model folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from flows.cost.flops import training_flops_per_token
from flows.errors import BudgetError, DataError, ModelError, OutOfDiskError, is_disk_full
from flows.progress import Progress
from flows.training import team
from flows.training.chat import stop_ids
from flows.training.checkpoints import newest_whole
from flows.training.config import STOP_FILE, FinetuneConfig, TrainingSection
from flows.training.loading import attention, load_for_training, load_tokenizer, precision
from flows.training.progress_callback import ProgressCallback

Examples = list[dict[str, Any]]
LEAST_STEPS = 4  # for one step of warm-up: at its first one the rate is 0, and a training of one would learn nothing


def train(
    section: TrainingSection, base: Path, examples: Examples, workdir: Path, progress: Progress
) -> dict[str, Any]:
    """Train `base` on examples ({text} or {prompt, completion}) and write the whole model to `workdir/output`.

    Checkpoints go to `workdir/checkpoints`; when there is a whole one, training goes on from it and, on a CPU, ends
    with the bits that an uninterrupted run has. Of several processes that train together (`flows.training.team`) the
    first writes the model and has the figures.

    Returns:
        Figures: method, steps, seconds, tokens, supervised_tokens, tokens_per_second, loss [[step, loss]], settings.

    Raises:
        ModelError: the base model cannot be loaded.
        DataError: no example fits the sequence length.
        ConfigError: the processes cannot share a batch evenly.
        OutOfDiskError: the disk is full; whole checkpoints are kept.
        BudgetError: `workdir/stop.txt` asked it to stop, in the words that stand there; there is a checkpoint.
    """
    try:
        return _train(section, base, examples, workdir, progress)
    except Exception as error:
        if is_disk_full(error):
            newest_whole(workdir / "checkpoints")  # removes the torn one, which gives back some space
            raise OutOfDiskError(
                f"The disk of {workdir} is full. Free some space and run again: training goes on from the newest whole "
                f"checkpoint."
            ) from error
        raise


def _train(
    section: TrainingSection, base: Path, examples: Examples, workdir: Path, progress: Progress
) -> dict[str, Any]:
    import torch
    from transformers import set_seed

    if section.threads:
        torch.set_num_threads(section.threads)
    set_seed(section.seed)
    tokenizer = load_tokenizer(base)
    examples, too_long = fitting(examples, tokenizer, section.max_length)
    if too_long:
        progress(0, 1, f"{too_long} of {too_long + len(examples)} examples are longer than max_length and left out")
    trainer = build_trainer(section, base, tokenizer, examples, workdir / "checkpoints")
    tokens, supervised = count_tokens(trainer.train_dataset)
    callback = ProgressCallback(
        progress, tokens * section.epochs, training_flops_per_token(trainer.model), workdir / STOP_FILE
    )
    trainer.add_callback(callback)
    with team.together().main_process_first():  # it removes torn ones
        resume = newest_whole(workdir / "checkpoints")
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if callback.stopped:
        raise BudgetError(
            f"{callback.stopped} Training has stopped at step {trainer.state.global_step} of {trainer.state.max_steps} "
            "with a checkpoint; run again with a greater budget and it goes on from there."
        )
    if not team.leads():
        return {}
    progress(1, 1, "merging and saving")
    save(trainer, section, base, tokenizer, workdir)
    steps = trainer.state.global_step
    done_here = (steps - callback.first_step) / max(1, steps)
    loss = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    figures = {
        "method": section.method if isinstance(section, FinetuneConfig) else "lora",
        "steps": steps,
        "resumed_from_step": callback.first_step,
        "processes": team.size(),
        "seconds": callback.seconds,
        "examples": len(examples),
        "too_long": too_long,
        "tokens": round(tokens * section.epochs),
        "tokens_this_time": round(tokens * section.epochs * done_here),
        "supervised_tokens": round(supervised * section.epochs),
        "tokens_per_second": tokens * section.epochs * done_here / max(callback.seconds, 1e-9),
        "loss": loss,
        "settings": section.model_dump(mode="json")
        | {
            "precision": precision(section),
            "attention": trainer.model.config._attn_implementation or attention(section),
        },
    }
    # Without what differs from attempt to attempt, so that the same weights are the same artifact.
    passing = ("seconds", "tokens_per_second", "tokens_this_time", "resumed_from_step", "processes")
    lasting = {name: figures[name] for name in figures if name not in passing}
    (workdir / "output" / "training.json").write_text(json.dumps(lasting, indent=1))
    return figures


def fitting(examples: Examples, tokenizer: Any, max_length: int) -> tuple[Examples, int]:
    """Examples whose whole text fits, and how many do not (a cut answer would teach to break off).

    Raises:
        DataError: none fits.
    """

    def length(example: dict[str, Any]) -> int:
        if "text" in example:
            return len(tokenizer(example["text"])["input_ids"])
        return len(
            tokenizer.apply_chat_template(example["prompt"] + example["completion"], return_dict=True)["input_ids"]
        )

    kept = [example for example in examples if length(example) <= max_length]
    if not kept:
        raise DataError(
            f"max_length: none of the {len(examples)} training examples fits {max_length} tokens. Raise max_length."
        )
    return kept, len(examples) - len(kept)


def build_trainer(section: TrainingSection, base: Path, tokenizer: Any, examples: Examples, checkpoints: Path) -> Any:
    """TRL's trainer for this section; nothing has been trained yet."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    full = isinstance(section, FinetuneConfig) and section.method == "full"
    batch, accumulation = team.share(section.batch_size, section.accumulation, team.size())
    lora = LoraConfig(
        r=section.lora.r,
        lora_alpha=section.lora.alpha,  # type: ignore[arg-type]
        lora_dropout=section.lora.dropout,
        use_rslora=section.lora.rslora,
        target_modules=list(section.lora.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        max_length=section.max_length,
        packing=section.packing,
        packing_strategy="bfd",
        num_train_epochs=section.epochs,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        ddp_find_unused_parameters=False,
        use_cpu=team.size() > 1 and not torch.accelerator.is_available(),  # else each would train by itself
        learning_rate=section.learning_rate,
        lr_scheduler_type=section.schedule,
        warmup_steps=section.warmup_steps,
        bf16=precision(section) == "bfloat16",
        activation_checkpointing=section.activation_checkpointing,
        logging_steps=section.log_steps,
        logging_first_step=True,
        save_strategy="steps",
        save_steps=section.checkpoint_steps,
        save_total_limit=2,
        seed=section.seed,
        data_seed=section.seed,
        report_to=section.report_to,
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    model = load_for_training(base, section)
    if not full:
        require_layers(model, section)
    trainer: Any = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer,
        peft_config=None if full else lora,
    )
    trainer.args.warmup_steps = min(
        section.warmup_steps, planned_steps(section, len(trainer.train_dataset)) // LEAST_STEPS
    )
    return trainer


def planned_steps(section: TrainingSection, sequences: int) -> int:
    """Optimizer steps of all epochs over so many sequences, however many processes share them (`team.share`)."""
    return math.ceil(math.ceil(sequences / (section.batch_size * section.accumulation)) * section.epochs)


def require_layers(model: Any, section: TrainingSection) -> None:
    """Refuse adapters on layers that the model does not have.

    Raises:
        ModelError: names them, and those that there are.
    """
    present = {name.rpartition(".")[2] for name, module in model.named_modules() if hasattr(module, "weight")}
    missing = [name for name in section.lora.target_modules if name not in present]
    if missing:
        linear = sorted(name for name in present if name.endswith("proj")) or sorted(present)
        raise ModelError(
            f"lora.target_modules: the base model has no layer {', '.join(missing)}. It has: {', '.join(linear[:20])}."
        )


def count_tokens(dataset: Any) -> tuple[int, int]:
    """(tokens, tokens with a loss) of one pass over a tokenized data set; without labels all have one."""
    tokens = supervised = 0
    for example in dataset:
        tokens += len(example["input_ids"])
        labels = example.get("labels", example["input_ids"])
        supervised += sum(label != -100 for label in labels)
    return tokens, supervised


def save(trainer: Any, section: TrainingSection, base: Path, tokenizer: Any, workdir: Path) -> None:
    """Merge the adapters in float32 into freshly loaded base weights and write the model folder."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, GenerationConfig

    output = workdir / "output"
    if isinstance(section, FinetuneConfig) and section.method == "full":
        model = trainer.model.float()
    else:
        trainer.save_model(str(workdir / "adapter"))
        # Never merged into 4-bit or bfloat16 weights: small updates would be rounded away.
        fresh = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = PeftModel.from_pretrained(fresh, str(workdir / "adapter")).merge_and_unload(safe_merge=True)
    model = model.to(getattr(torch, section.merged_dtype))
    model.generation_config = GenerationConfig(
        eos_token_id=stop_ids(tokenizer), pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id
    )
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
