"""The chat format: rows as prompt and completion, and the token that ends a turn."""

from __future__ import annotations

from typing import Any

from flows.corpus.row import Row
from flows.errors import ModelError

Message = dict[str, str]


def prompt_messages(row: Row) -> list[Message]:
    """What the model is asked. No system message: Gemma's template refuses one."""
    return [{"role": "user", "content": row.user_message}]


def conversation(row: Row) -> dict[str, list[Message]]:
    """A row in TRL's conversational prompt/completion form: the loss is on the completion only."""
    return {"prompt": prompt_messages(row), "completion": [{"role": "assistant", "content": row.answer}]}


def end_of_turn_id(tokenizer: Any) -> int:
    """The token that the chat template puts after a reply, at which generation must stop.

    Raises:
        ModelError: the template closes a reply with plain text only.
    """
    turn = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Zyx"}]
    text = tokenizer.apply_chat_template(turn, tokenize=False)
    after = text[text.rindex("Zyx") + len("Zyx") :]
    for token in tokenizer(after, add_special_tokens=False)["input_ids"]:
        if token in tokenizer.added_tokens_decoder:
            return int(token)
    raise ModelError(
        f"The chat template closes a reply with {after!r}, which holds no special token, so that a reply has no end. "
        "Take a model whose template has an end-of-turn token."
    )


def stop_ids(tokenizer: Any) -> list[int]:
    """All tokens that end a reply: end of turn, and end of text where it is another one."""
    return list(dict.fromkeys([end_of_turn_id(tokenizer), int(tokenizer.eos_token_id)]))
