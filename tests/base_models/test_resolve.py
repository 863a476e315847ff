import json
import os
import subprocess
import sys

import pytest

from flows.base_models.resolve import BaseModelConfig, identity, pinned, resolve
from flows.errors import ModelError


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("tiny:gemma-2", "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"),
        (
            "tiny:llama-3",
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
    ],
)
def test_tiny_models_load_and_chat_as_the_real_ones(tmp_path, name, prompt):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = resolve(BaseModelConfig(name=name), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    messages = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == prompt
    loaded = AutoModelForCausalLM.from_pretrained(model.path)
    assert len(loaded.generation_config.eos_token_id) == 2


def test_tiny_models_are_the_same_every_time(tmp_path):
    from flows.store.digest import file_digest

    made = [resolve(BaseModelConfig(name="tiny:llama-3"), tmp_path / side).path for side in "ab"]
    first, second = (file_digest(tmp_path / side / "tiny-llama-3-v2" / "model.safetensors") for side in "ab")
    assert first == second
    assert len(set(made)) == 2


def test_a_model_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"model\.name: no base model 'nobody/nothing'.*Hub cache"):
        resolve(BaseModelConfig(name="nobody/nothing"), tmp_path)
    with pytest.raises(ModelError, match="There are: tiny:gemma-2, tiny:llama-3"):
        resolve(BaseModelConfig(name="tiny:gpt"), tmp_path)


def test_a_hub_that_cannot_be_reached_is_said(tmp_path):
    code = "from flows.base_models.resolve import *; identity(BaseModelConfig(name='google/gemma-2-2b-it'))"
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert "ModelError: model.name: no base model 'google/gemma-2-2b-it': the Hub cannot be reached" in last


def test_a_commit_that_is_here_is_not_asked_for_at_the_hub(tmp_path):
    commit = "299a8560bedf22ed1c72a8a11e7dce4a7f9f51f8"
    snapshot = tmp_path / "hub" / "models--google--gemma-2-2b-it" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    code = (
        "from flows.base_models.resolve import *; import sys; "
        "print(identity(BaseModelConfig(name='google/gemma-2-2b-it', revision=sys.argv[1])))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    for revision, said in ((commit, f"hub:google/gemma-2-2b-it@{commit}"), (commit[::-1], "")):
        command = [sys.executable, "-c", code, revision]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == said


def test_a_folder_is_named_by_its_whole_path_for_other_machines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pinned(BaseModelConfig(name="mine"), "folder:0").name == str(tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert pinned(BaseModelConfig(name="~/mine"), "folder:0").name == str(tmp_path / "home" / "mine")


def test_a_model_without_chat_template_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 8}))
    with pytest.raises(ModelError, match="has no chat template"):
        resolve(BaseModelConfig(name=str(tmp_path)), tmp_path / "models")


def test_a_folder_is_known_by_its_content(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = identity(BaseModelConfig(name=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"hidden_size": 2}')
    assert identity(BaseModelConfig(name=str(tmp_path))) != before
