"""Replies depend on model and question alone: not on the batch, not on the model's own settings, not on a kill."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationMixin

from flows.evaluation.config import EvaluationConfig
from flows.evaluation.generate import Reply, generate
from flows.training.chat import end_of_turn_id, stop_ids
from flows.training.loading import load_tokenizer

LENGTH = 12


@pytest.fixture(params=["gemma-2", "llama-3"])
def model(request, talkers):
    return talkers[request.param]


@pytest.fixture
def answer(tmp_path):
    """Replies of a model to rows; each call keeps them in a file of its own unless one is given."""
    numbers = iter(range(99))

    def _answer(model, rows, kept=None, done=lambda count: None, **settings):
        config = EvaluationConfig(**{"max_new_tokens": LENGTH, "batch_size": 8, "threads": 1} | settings)
        return generate(config, model, rows, kept or tmp_path / f"replies-{next(numbers)}.jsonl", done)

    return _answer


@pytest.fixture
def watched(monkeypatch):
    """The prompts that the model is really given, without padding, and how many tokens it made of each batch."""
    seen = SimpleNamespace(prompts=[], made=[])
    real = GenerationMixin.generate

    def generate_and_note(self, *args, **batch):
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            seen.prompts.append(ids[mask.bool()].tolist())
        produced = real(self, *args, **batch)
        seen.made.append(produced.shape[1] - batch["input_ids"].shape[1])
        return produced

    monkeypatch.setattr(GenerationMixin, "generate", generate_and_note)
    return seen


def expected_prompt(tokenizer, row):
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": row.user_message}], add_generation_prompt=True, tokenize=False
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def greedy_tokens(path, rows):
    """The replies' tokens without batch, padding, cache or generate(): the best next token of whole forward passes."""
    tokenizer = load_tokenizer(path)
    stops = stop_ids(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    replies = []
    for row in rows:
        ids, reply = expected_prompt(tokenizer, row), []
        while len(reply) < LENGTH and not set(reply) & set(stops):
            with torch.inference_mode():
                reply.append(int(model(torch.tensor([ids + reply])).logits[0, -1].argmax()))
        replies.append(reply)
    return tokenizer, replies


def test_a_batch_of_one_and_of_eight_give_what_the_model_alone_gives(model, rows, answer):
    tokenizer, replies = greedy_tokens(model, rows)
    texts = [tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in replies]
    assert len(set(texts)) >= 8, "the replies must differ, or this test shows nothing"
    assert [reply.text for reply in answer(model, rows, batch_size=1)] == texts
    assert [reply.text for reply in answer(model, rows, batch_size=8)] == texts


def test_replies_stand_in_the_order_of_the_rows(model, rows, answer):
    there, back = answer(model, rows), answer(model, rows[::-1])
    assert [reply.id for reply in there] == [row.id for row in rows]
    assert back == there[::-1]


def test_padding_does_not_follow_the_side_in_the_model_s_folder(model, rows, answer, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    file = tmp_path / "model" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"padding_side": "right"}))
    assert answer(tmp_path / "model", rows) == answer(model, rows)


def test_a_padding_token_that_also_ends_a_turn_changes_nothing(model, rows, answer, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    tokenizer = load_tokenizer(model)
    tokenizer.pad_token_id = end_of_turn_id(tokenizer)
    tokenizer.save_pretrained(tmp_path / "model")
    assert answer(tmp_path / "model", rows) == answer(model, rows)


def test_the_prompt_is_the_chat_template_s_with_one_begin_of_text(model, rows, row, answer, watched):
    rows = [*rows, row(10, question="선하증권은 무엇인가?", instruction="Answer in one sentence.")]
    answer(model, rows)
    tokenizer = load_tokenizer(model)
    expected = [expected_prompt(tokenizer, row) for row in rows]
    assert sorted(watched.prompts) == sorted(expected)
    assert all(ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1 for ids in watched.prompts)
    assert "Answer in one sentence.\n선하증권은 무엇인가?" in tokenizer.decode(expected[-1])


def test_the_model_s_own_generation_settings_do_not_count(model, rows, answer, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    own = {
        "do_sample": True,
        "temperature": 9.0,
        "top_k": 0,
        "repetition_penalty": 3.0,
        "no_repeat_ngram_size": 1,
        "max_length": 3,
        "max_new_tokens": 2,
        "eos_token_id": list(range(6, 1000)),
        "suppress_tokens": list(range(300, 900)),
    }
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(own))
    assert answer(tmp_path / "model", rows) == answer(model, rows)


def test_a_reply_ends_at_the_end_of_turn_and_others_are_called_cut_off(model, rows, answer, tmp_path, watched):
    """The head's rows of the end of turn and of a token of the first reply change places: there it ends by itself."""
    tokenizer, replies = greedy_tokens(model, rows)
    ends = next(token for token in replies[0][3:] if token not in tokenizer.added_tokens_decoder)
    end = end_of_turn_id(tokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        loaded.lm_head.weight[[ends, end]] = loaded.lm_head.weight[[end, ends]]
    shutil.copytree(model, tmp_path / "model")
    loaded.save_pretrained(tmp_path / "model")

    found = answer(tmp_path / "model", rows)

    at = replies[0].index(ends)
    text = tokenizer.decode(replies[0][:at], skip_special_tokens=True).strip()
    assert found[0] == Reply(id="r0", text=text, tokens=at, truncated=False)
    others = [reply for reply, tokens in zip(found, replies, strict=True) if not {ends, end} & set(tokens)]
    assert len(others) >= 5
    assert all(reply.truncated and reply.tokens == LENGTH for reply in others)
    watched.made.clear()
    assert answer(tmp_path / "model", rows, batch_size=1) == found
    assert at + 1 in watched.made, "the model must stop there, not only its reply be cut"
    assert not answer(tmp_path / "model", rows, max_new_tokens=at + 1)[0].truncated
    assert answer(tmp_path / "model", rows, max_new_tokens=at)[0].truncated


TORN = Reply(id="r5", text="선하증권", tokens=1, truncated=False).model_dump_json().encode()


@pytest.mark.parametrize("torn", [b"", TORN[:1], TORN[: TORN.index("권".encode()) + 1], TORN[:-1], TORN])
def test_a_killed_run_goes_on_after_the_last_whole_line(talkers, rows, answer, watched, tmp_path, torn):
    model, kept = talkers["llama-3"], tmp_path / "kept.jsonl"
    fresh = answer(model, rows)
    watched.prompts.clear()
    before = [Reply(id=row.id, text=f"from before: {row.id} 답", tokens=1, truncated=False) for row in rows[:5]]
    kept.write_bytes("".join(f"{reply.model_dump_json()}\n" for reply in before).encode() + torn)
    counts = []

    found = answer(model, rows, kept=kept, done=counts.append, batch_size=2)

    assert found == before + fresh[5:]
    tokenizer = load_tokenizer(model)
    assert sorted(watched.prompts) == sorted(expected_prompt(tokenizer, row) for row in rows[5:])
    assert counts == [5, 7, 9, 10]
    # The file is whole again: with it nothing is asked, not even a model is needed.
    assert answer(Path("/no/such/model"), rows, kept=kept) == found
    assert len(kept.read_text("utf-8").splitlines()) == len(rows)
