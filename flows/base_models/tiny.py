"""Tiny random models with real chat templates: made in about a second, for tests and to prove a language path."""

from __future__ import annotations

import importlib.resources
from typing import Any

from flows.errors import ModelError

VOCABULARY = 1024


def _shape(tokenizer: Any) -> dict[str, Any]:
    """What the families have in common: sizes, and the tokenizer's special tokens."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,  # vLLM's attention on the CPU takes no smaller one
        "max_position_embeddings": 1024,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _gemma2(tokenizer: Any) -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(sliding_window=256, query_pre_attn_scalar=32, **_shape(tokenizer))
    return Gemma2ForCausalLM(config)


def _llama(tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, **_shape(tokenizer)))


# family -> (model maker, special tokens: pad, bos, eos, turn marks; the end-of-turn token is the last one)
FAMILIES = {
    "gemma-2": (_gemma2, ["<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]),
    "llama-3": (
        _llama,
        ["<|pad|>", "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    ),
}


def identity(family: str) -> str:
    """A string naming the family and the version of this recipe.

    Raises:
        ModelError: no such family.
    """
    if family not in FAMILIES:
        raise ModelError(f"No tiny model '{family}'. There are: {', '.join(f'tiny:{f}' for f in FAMILIES)}.")
    return f"tiny-{family}-v2"


def load(family: str) -> tuple[Any, Any]:
    """Make a random model and its tokenizer; the same weights every time.

    Raises:
        ModelError: no such family.
    """
    import torch

    identity(family)
    maker, special = FAMILIES[family]
    tokenizer = _tokenizer(family, special)
    with torch.random.fork_rng():
        torch.manual_seed(20)
        model = maker(tokenizer)
    end_of_turn = tokenizer.convert_tokens_to_ids(special[-1])
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end_of_turn]
    return model, tokenizer


def _tokenizer(family: str, special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_sample_text(), trainer)
    bos = special[1]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=special[0], bos_token=bos, eos_token=special[2], padding_side="left"
    )
    template = importlib.resources.files("flows.base_models") / "chat_templates" / f"{family}.jinja"
    tokenizer.chat_template = template.read_text("utf-8").strip()
    return tokenizer


def _sample_text() -> list[str]:
    samples = importlib.resources.files("flows.corpus") / "samples"
    names = ("trade_en", "trade_ko")
    return [(samples / name / "transcripts" / "lectures.jsonl").read_text("utf-8") for name in names]
