"""Guards on the chat format: what is trained on is what the model will be asked."""

import pytest
from transformers import AutoTokenizer

from flows.corpus.row import Row, read_rows
from flows.errors import ModelError
from flows.training.chat import conversation, end_of_turn_id, prompt_messages, stop_ids
from flows.training.config import FinetuneConfig
from flows.training.engine import build_trainer
from flows.training.loading import load_tokenizer

END = {"gemma-2": "<end_of_turn>", "llama-3": "<|eot_id|>"}
ROW = Row(id="r", source="s", group="g", context="", question="What?", answer="This.", instruction="Answer")


@pytest.fixture(params=["gemma-2", "llama-3"])
def trained_on(request, tiny_models, tmp_path):
    """(tokenizer, one tokenized unpacked example) as the trainer makes them."""
    tokenizer = load_tokenizer(tiny_models[request.param])
    section = FinetuneConfig(packing=False, max_length=128)
    trainer = build_trainer(section, tiny_models[request.param], tokenizer, [conversation(ROW)] * 2, tmp_path)
    return request.param, tokenizer, trainer


def test_one_begin_of_text_and_the_reply_with_its_end_is_the_loss(trained_on):
    family, tokenizer, trainer = trained_on
    example = trainer.train_dataset[0]
    ids, labels = example["input_ids"], example["labels"]
    assert ids.count(tokenizer.bos_token_id) == 1
    supervised = tokenizer.decode([label for label in labels if label != -100])
    assert supervised.strip() == f"This.{END[family]}"
    batch = trainer.data_collator([dict(example)])
    labels = [label for label in batch["labels"][0].tolist() if label != -100]
    assert tokenizer.decode(labels).strip() == f"This.{END[family]}"


def test_the_trained_prompt_is_the_prompt_of_evaluation_and_serving(trained_on):
    _, tokenizer, trainer = trained_on
    ids = trainer.train_dataset[0]["input_ids"]
    asked = tokenizer.apply_chat_template(prompt_messages(ROW), add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    assert ids[: len(asked)] == asked


def test_the_end_of_turn_is_found_in_the_template(tiny_models):
    for family, token in END.items():
        tokenizer = load_tokenizer(tiny_models[family])
        assert end_of_turn_id(tokenizer) == tokenizer.convert_tokens_to_ids(token)
        assert len(stop_ids(tokenizer)) == 2


def test_a_template_without_an_end_is_refused(tiny_models):
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["llama-3"])
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    with pytest.raises(ModelError, match="a reply has no end"):
        end_of_turn_id(tokenizer)


def test_no_training_row_is_lost(dataset, tiny_models, tmp_path):
    rows = read_rows(dataset, "train")
    tokenizer = load_tokenizer(tiny_models["gemma-2"])
    examples = [conversation(row) for row in rows]
    packed = build_trainer(
        FinetuneConfig(packing=True, max_length=128), tiny_models["gemma-2"], tokenizer, examples, tmp_path
    )
    ids = [token for example in packed.train_dataset for token in example["input_ids"]]
    assert ids.count(tokenizer.bos_token_id) == len(rows)
