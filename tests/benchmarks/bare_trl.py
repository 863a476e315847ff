"""The alternative: a plain TRL script, as its documentation shows it, with nothing of ours."""

import json
import sys

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

request = json.loads(sys.argv[1])
section = request["section"]
if section["threads"]:
    torch.set_num_threads(section["threads"])
with open(f"{request['dataset']}/rows.jsonl", encoding="utf-8") as stream:
    rows = [row for row in map(json.loads, stream) if row["split"] == "train"]
examples = [
    {
        "prompt": [{"role": "user", "content": f"{row['instruction']}\n{row['question']}"}],
        "completion": [{"role": "assistant", "content": row["answer"]}],
    }
    for row in rows
]
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32),
    args=SFTConfig(
        output_dir=request["output"],
        max_length=section["max_length"],
        packing=section["packing"],
        num_train_epochs=section["epochs"],
        per_device_train_batch_size=section["batch_size"],
        gradient_accumulation_steps=section["accumulation"],
        learning_rate=section["learning_rate"],
        lr_scheduler_type=section["schedule"],
        warmup_steps=section["warmup_steps"],
        bf16=False,
        activation_checkpointing=section["activation_checkpointing"],
        logging_steps=section["log_steps"],
        save_strategy="no",
        seed=section["seed"],
        report_to="none",
        disable_tqdm=True,
    ),
    train_dataset=Dataset.from_list(examples),
    processing_class=AutoTokenizer.from_pretrained(request["model"]),
    peft_config=LoraConfig(
        r=section["lora"]["r"],
        lora_alpha=section["lora"]["alpha"],
        lora_dropout=section["lora"]["dropout"],
        target_modules=section["lora"]["target_modules"],
        task_type="CAUSAL_LM",
    ),
)
trainer.train()
trainer.save_model(f"{request['output']}/adapter")
base = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
merged = PeftModel.from_pretrained(base, f"{request['output']}/adapter").merge_and_unload()
merged.save_pretrained(f"{request['output']}/merged")
