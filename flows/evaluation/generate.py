"""Replies of a model to held-out questions: greedy, in left-padded batches, kept as they come."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.config import Config
from flows.corpus.row import Row
from flows.cost.counter import done_here
from flows.cost.flops import answering_flops_per_token
from flows.evaluation.config import EvaluationConfig
from flows.training.chat import prompt_messages, stop_ids
from flows.training.loading import load_tokenizer


class Reply(Config):
    """One reply; `truncated` means that it reached max_new_tokens without ending by itself."""

    id: str
    text: str
    tokens: int
    truncated: bool


def generate(
    config: EvaluationConfig, model: Path, rows: list[Row], kept: Path, done: Callable[[int], None]
) -> list[Reply]:
    """The replies to `rows`, in their order.

    Each batch is appended to the file `kept`; a run that was killed goes on after the last whole line of it. `done` is
    called with the number of replies so far.
    """
    replies = {reply.id: reply for reply in _read(kept)}
    missing = [row for row in rows if row.id not in replies]
    done(len(rows) - len(missing))
    if missing:
        answer = _answerer(config, model)
        # Rows of like length together, so that little padding is computed.
        missing.sort(key=lambda row: len(row.user_message))
        with kept.open("a", encoding="utf-8") as stream:
            for start in range(0, len(missing), config.batch_size):
                for reply in answer(missing[start : start + config.batch_size]):
                    replies[reply.id] = reply
                    stream.write(reply.model_dump_json() + "\n")
                stream.flush()
                done(len(replies))
    return [replies[row.id] for row in rows]


def _read(kept: Path) -> list[Reply]:
    if not kept.exists():
        return []
    content = kept.read_bytes()  # a kill can tear a line within a letter
    whole = content[: content.rfind(b"\n") + 1]
    os.truncate(kept, len(whole))
    return [Reply.model_validate_json(line) for line in whole.split(b"\n")[:-1]]


def _answerer(config: EvaluationConfig, path: Path) -> Callable[[list[Row]], list[Reply]]:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    if config.threads:
        torch.set_num_threads(config.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    tokenizer = load_tokenizer(path)
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    model.to(device).eval()
    flops_per_token = answering_flops_per_token(model)
    stops = stop_ids(tokenizer)
    # The model's own sampling settings must not count: both models answer under the same ones.
    model.generation_config = GenerationConfig(
        max_new_tokens=config.max_new_tokens, do_sample=False, eos_token_id=stops, pad_token_id=tokenizer.pad_token_id
    )

    def answer(rows: list[Row]) -> list[Reply]:
        batch: Any = tokenizer.apply_chat_template(
            [prompt_messages(row) for row in rows],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        ).to(device)
        with torch.inference_mode():
            produced = model.generate(**batch)[:, batch["input_ids"].shape[1] :].tolist()
        replies = [_reply(row, tokens, stops, tokenizer) for row, tokens in zip(rows, produced, strict=True)]
        tokens = int(batch["attention_mask"].sum()) + sum(reply.tokens for reply in replies)
        done_here.add(tokens, tokens * flops_per_token)
        return replies

    return answer


def _reply(row: Row, tokens: list[int], stops: list[int], tokenizer: Any) -> Reply:
    end = next((at for at, token in enumerate(tokens) if token in stops), None)
    own = tokens if end is None else tokens[:end]
    text = tokenizer.decode(own, skip_special_tokens=True).strip()
    return Reply(id=row.id, text=text, tokens=len(own), truncated=end is None)
