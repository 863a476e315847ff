"""Guards on training itself: equal ways give equal numbers, nothing is lost, the merged model is the trained one."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from flows.corpus.row import read_rows
from flows.errors import BudgetError, DataError, ModelError, OutOfDiskError
from flows.training.chat import conversation
from flows.training.config import FinetuneConfig, LoraSection
from flows.training.engine import build_trainer, count_tokens, require_layers
from flows.training.loading import load_tokenizer


def weights(folder):
    return load_file(folder / "output" / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def summed_loss(section, base, examples, tmp_path):
    """Loss summed over all supervised tokens of one pass, in evaluation mode."""
    trainer = build_trainer(section, base, load_tokenizer(base), examples, tmp_path)
    model = trainer.model.eval()
    total = 0.0
    for batch in trainer.get_train_dataloader():
        labels = batch["labels"]
        kept = {name: batch[name] for name in ("input_ids", "position_ids", "attention_mask") if name in batch}
        with torch.no_grad():
            logits = model(**kept, use_cache=False).logits[:, :-1]
        total += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
        ).item()
    return total


@pytest.mark.parametrize("family", ["gemma-2", "llama-3"])
def test_packed_rows_see_only_themselves(family, dataset, tiny_models, tmp_path):
    examples = [conversation(row) for row in read_rows(dataset, "train")]
    losses = [
        summed_loss(FinetuneConfig(packing=packing, max_length=128), tiny_models[family], examples, tmp_path)
        for packing in (True, False)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_batch_of_four_is_two_accumulated_batches_of_two(train):
    one, _ = train("one", batch_size=4, accumulation=1, packing=False, lora={"r": 4, "dropout": 0})
    two, _ = train("two", batch_size=2, accumulation=2, packing=False, lora={"r": 4, "dropout": 0})
    assert [step for step, _ in one["loss"]] == [step for step, _ in two["loss"]]
    assert [loss for _, loss in one["loss"]] == pytest.approx([loss for _, loss in two["loss"]], rel=1e-4)


def test_a_training_of_one_step_learns(train, tiny_models):
    one, folder = train("one", epochs=1, batch_size=64, accumulation=1, packing=False)
    assert (one["steps"], one["settings"]["warmup_steps"]) == (1, 2)
    base = load_file(Path(tiny_models["llama-3"]) / "model.safetensors")
    assert not same(weights(folder), base)


class KilledError(Exception):
    pass


def test_a_killed_training_goes_on_and_ends_with_the_same_bits(train):
    _, whole = train("whole", checkpoint_steps=2, log_steps=1)

    def kill(done, total, note="", /, **figures):
        if done == 5:
            raise KilledError

    with pytest.raises(KilledError):
        train("killed", checkpoint_steps=2, log_steps=1, progress=kill)
    torn = whole.parent / "killed" / "checkpoints" / "checkpoint-99"
    torn.mkdir()
    (torn / "trainer_state.json").write_text("{}")
    figures, resumed = train("killed", checkpoint_steps=2, log_steps=1)
    assert figures["resumed_from_step"] == 4
    assert same(weights(whole), weights(resumed))


def test_a_training_that_is_asked_to_stop_does_with_a_checkpoint_and_ends_with_the_same_bits(train, tmp_path):
    _, whole = train("whole", log_steps=1)

    def ask(done, total, note="", /, **figures):
        if done == 5:
            (tmp_path / "stopped" / "stop.txt").write_text("It is used up.")

    with pytest.raises(BudgetError, match="^It is used up. Training has stopped at step 6 of 10 with a checkpoint"):
        train("stopped", log_steps=1, progress=ask)
    (tmp_path / "stopped" / "stop.txt").unlink()
    figures, resumed = train("stopped", log_steps=1)
    assert figures["resumed_from_step"] == 6
    assert same(weights(whole), weights(resumed))


def test_a_checkpoint_with_a_file_cut_short_is_not_resumed_from(train):
    figures, folder = train("cut", checkpoint_steps=2)
    newest = folder / "checkpoints" / f"checkpoint-{figures['steps']}"
    (newest / "optimizer.pt").write_bytes(b"half")
    again, _ = train("cut", checkpoint_steps=2)
    assert 0 < again["resumed_from_step"] < figures["steps"]


@pytest.mark.parametrize("family", ["gemma-2", "llama-3"])
def test_the_merged_model_is_base_plus_adapter(family, train, tiny_models):
    _, folder = train(family=family)
    base = AutoModelForCausalLM.from_pretrained(tiny_models[family])
    adapted = PeftModel.from_pretrained(base, folder / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(folder / "output").eval()
    ids = torch.arange(30).unsqueeze(0)
    with torch.no_grad():
        assert torch.allclose(adapted(ids).logits, merged(ids).logits, atol=1e-4)
        assert not torch.allclose(
            AutoModelForCausalLM.from_pretrained(tiny_models[family])(ids).logits, merged(ids).logits, atol=1e-3
        )
    assert merged.dtype == torch.float32
    assert len(merged.generation_config.eos_token_id) == 2


@pytest.mark.parametrize("method", ["qlora", "full"])
def test_every_method_learns(method, train):
    figures, folder = train(method=method, epochs=6, log_steps=1)
    assert figures["method"] == method
    assert figures["loss"][-1][1] < figures["loss"][0][1] - 0.2
    assert set(weights(folder))


def test_a_small_update_survives_the_merge_in_float32(train, tiny_models):
    _, folder = train(epochs=1, learning_rate=1e-6)
    base = load_file(f"{tiny_models['llama-3']}/model.safetensors")
    merged = weights(folder)
    name = "model.layers.0.mlp.down_proj.weight"
    changed = (base[name] != merged[name]).float().mean()
    assert changed > 0.5
    rounded = (base[name].bfloat16() != merged[name].bfloat16()).float().mean()
    assert rounded < 0.2  # what a bfloat16 merge would have left of it


def test_figures_count_all_tokens_and_those_with_a_loss(train, dataset, tiny_models, tmp_path):
    figures, folder = train(epochs=2)
    tokenizer = load_tokenizer(tiny_models["llama-3"])
    rows = read_rows(dataset, "train")
    turns = [conversation(row) for row in rows]
    whole = sum(
        len(tokenizer.apply_chat_template(t["prompt"] + t["completion"], return_dict=True)["input_ids"]) for t in turns
    )
    assert figures["tokens"] == 2 * whole
    assert 0 < figures["supervised_tokens"] < figures["tokens"]
    assert json.loads((folder / "output" / "training.json").read_text())["steps"] == figures["steps"]


def test_rows_that_do_not_fit_are_left_out_and_counted(train):
    figures, _ = train(max_length=40, packing=True)
    assert figures["too_long"] > 0
    assert figures["examples"] + figures["too_long"] == 24


def test_nothing_that_fits_is_an_error_naming_the_field(train):
    with pytest.raises(DataError, match="max_length: none of the 24 training examples fits 32 tokens"):
        train(max_length=32)


def test_adapters_on_layers_that_are_not_there_are_refused():
    model = torch.nn.ModuleDict({"c_proj": torch.nn.Linear(2, 2), "q_proj": torch.nn.Linear(2, 2)})
    section = FinetuneConfig(lora=LoraSection(target_modules=["q_proj", "v_proj"]))
    with pytest.raises(ModelError, match=r"no layer v_proj\. It has: c_proj, q_proj"):
        require_layers(model, section)


def test_progress_never_goes_back_and_reports_loss_and_speed(train):
    seen = []
    train(log_steps=1, progress=lambda done, total, note="", /, **figures: seen.append((done, total, figures)))
    steps = [done for done, total, figures in seen if "loss" in figures]
    assert steps == sorted(steps)
    assert all(figures["tokens_per_s"] > 0 for _, _, figures in seen if "loss" in figures)


def test_pretraining_keeps_every_token(train, dataset, tiny_models):
    figures, _ = train(stage="pretrain", epochs=1, max_length=48)
    tokenizer = load_tokenizer(tiny_models["llama-3"])
    texts = (dataset / "documents.jsonl").read_text().splitlines()
    least = sum(
        len(tokenizer(json.loads(line)["text"].strip(), add_special_tokens=False)["input_ids"]) for line in texts
    )
    assert figures["tokens"] >= least - figures["examples"]
    assert figures["tokens"] == figures["supervised_tokens"]
    assert figures["examples"] > 12


def test_a_full_disk_is_named_and_keeps_whole_checkpoints(train, tmp_path):
    def full(done, total, note="", /, **figures):
        if done == 4:
            raise OSError(28, "No space left on device")

    with pytest.raises(OutOfDiskError, match="goes on from the newest whole checkpoint"):
        train("full", checkpoint_steps=2, log_steps=1, progress=full)
    figures, _ = train("full", checkpoint_steps=2, log_steps=1)
    assert figures["resumed_from_step"] == 4 or figures["resumed_from_step"] == 2


def test_counting_tokens_sees_labels():
    assert count_tokens([{"input_ids": [1, 2], "labels": [-100, 5]}]) == (2, 1)
    assert count_tokens([{"input_ids": [1, 2]}]) == (2, 2)
