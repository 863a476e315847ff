import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from flows.errors import ServingError
from flows.serving import definition, model_folder
from tests.serving.folders import adapter, model, safetensors, sharded


def problems(folder, **options):
    with pytest.raises(ServingError) as error:
        model_folder.check_model(folder, **options)
    return str(error.value).splitlines()


def test_whole_folders_pass(llama, tmp_path):
    model_folder.check_model(llama)
    model_folder.check_model(model(tmp_path / "one"))
    model_folder.check_model(sharded(tmp_path / "three"))
    model_folder.check_adapter(adapter(tmp_path / "adapter"))
    model_folder.check_weights(tmp_path)
    save_file({"a": torch.zeros(3, 5), "b": torch.ones(7)}, tmp_path / "one" / "model.safetensors")
    model_folder.check_model(tmp_path / "one")


def test_a_cut_copy_of_a_real_model_is_torn(llama, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(llama, folder)
    weights = folder / "model.safetensors"
    size = weights.stat().st_size
    for left in (size - 1, size // 2):
        with weights.open("r+b") as stream:
            stream.truncate(left)
        assert problems(folder) == [f"{weights} is torn: {left} of {size} bytes. Copy it again."]
    with weights.open("r+b") as stream:
        stream.truncate(100)
    assert problems(folder) == [f"{weights} is torn: it ends within its header. Copy it again."]


def test_an_empty_folder_lacks_everything(tmp_path):
    assert problems(tmp_path) == [
        f"{tmp_path / 'config.json'} is missing.",
        f"{tmp_path} holds no weights: save the model there (model.save_pretrained).",
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is no safetensors file."),
        (b"x" * 200, "is no safetensors file."),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        ((9).to_bytes(8, "little") + b"{'no json", "its header cannot be read."),
        ((2).to_bytes(8, "little") + b"[]", "its header cannot be read."),
        ((2).to_bytes(8, "little") + b"{}" + b"trailing", "is too long: 18 of 10 bytes."),
    ],
)
def test_what_is_no_safetensors_file_is_told(tmp_path, content, why):
    (model(tmp_path) / "model.safetensors").write_bytes(content)
    (line,) = problems(tmp_path)
    assert line.startswith(f"{tmp_path / 'model.safetensors'} ")
    assert why in line


def test_every_missing_shard_is_named_once_with_or_without_an_index(tmp_path):
    sharded(tmp_path)
    (tmp_path / "model-00001-of-00003.safetensors").unlink()
    (tmp_path / "model-00003-of-00003.safetensors").unlink()
    for _ in range(2):
        lines = problems(tmp_path)
        assert [line.split()[0] for line in lines] == [
            str(tmp_path / f"model-0000{n}-of-00003.safetensors") for n in (1, 3)
        ]
        assert all("is missing, though" in line for line in lines)
        (tmp_path / model_folder.INDEX).unlink(missing_ok=True)


@pytest.mark.parametrize("index", ["no json", "[]", '{"weight_map": {"a": "../../etc/passwd"}}', '{"weight_map": 3}'])
def test_an_index_that_is_none_is_told(tmp_path, index):
    (sharded(tmp_path) / model_folder.INDEX).write_text(index)
    (line,) = problems(tmp_path)
    assert str(tmp_path / model_folder.INDEX) in line


def test_a_broken_link_is_told(tmp_path):
    (model(tmp_path) / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "gone")
    assert problems(tmp_path) == [
        f"{tmp_path / 'model.safetensors'} cannot be read: No such file or directory. A broken link?"
    ]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "weights.PKL", "last.ckpt"])
def test_pickles_are_refused_unless_allowed_even_beside_safetensors(tmp_path, name):
    (model(tmp_path) / name).write_bytes(b"\x80\x02.")
    for _ in range(2):
        (line,) = problems(tmp_path)
        assert line.startswith(f"{tmp_path / name} is a Python pickle")
        with pytest.raises(ServingError, match="pickle"):
            model_folder.check_weights(tmp_path)
        model_folder.check_model(tmp_path, allow_pickle=True)
        (tmp_path / "model.safetensors").unlink(missing_ok=True)


def test_what_a_trainer_leaves_is_no_reason_to_refuse(tmp_path):
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth"):
        (model(tmp_path) / name).write_bytes(b"\x80\x02.")
    model_folder.check_model(tmp_path)


def test_an_adapter_alone_is_no_model(tmp_path):
    (line,) = problems(adapter(tmp_path))
    assert "LoRA adapter without its base model" in line


@pytest.mark.parametrize("text", ["", "[]", "{", "\udcff"])
def test_a_config_that_is_no_json_object_is_told(tmp_path, text):
    (model(tmp_path) / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    (line,) = problems(tmp_path)
    assert line.startswith(str(tmp_path / "config.json"))


def test_a_torn_adapter_is_told(tmp_path):
    weights = adapter(tmp_path / "a") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ServingError, match="torn"):
        model_folder.check_adapter(tmp_path / "a")
    with pytest.raises(ServingError, match="There is no folder"):
        model_folder.check_adapter(tmp_path / "b")
    (tmp_path / "c").mkdir()
    with pytest.raises(
        ServingError, match=r"(?s)adapter_config\.json is missing.*adapter_model\.safetensors is missing"
    ):
        model_folder.check_adapter(tmp_path / "c")


def test_a_gguf_file_is_found_and_looked_at(tmp_path):
    with pytest.raises(ServingError, match="convert_hf_to_gguf"):
        model_folder.check_gguf(tmp_path)
    safetensors(tmp_path / "b.gguf")
    with pytest.raises(ServingError, match=r"b\.gguf is no GGUF file"):
        model_folder.check_gguf(tmp_path)
    (tmp_path / "a.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    model_folder.check_gguf(tmp_path)
    assert [path.name for path in model_folder.gguf_files(tmp_path)] == ["a.gguf", "b.gguf"]
    with pytest.raises(ServingError, match=r"b\.gguf is no GGUF"):
        model_folder.check_gguf(tmp_path, "b.gguf")
    with pytest.raises(ServingError, match=r"holds no c\.gguf"):
        model_folder.check_gguf(tmp_path, "c.gguf")


def test_all_problems_are_told_at_once(tmp_path):
    sharded(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "old.bin").write_bytes(b"")
    (tmp_path / "model-00002-of-00003.safetensors").write_bytes(b"")
    (tmp_path / "model-00003-of-00003.safetensors").unlink()
    assert len(problems(tmp_path)) == 4
    assert json.loads((tmp_path / model_folder.INDEX).read_text())


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", model_folder.INDEX, "adapter_model.safetensors", definition.NAME]
)
def test_a_pipe_is_not_waited_for(tmp_path, name):
    folder = adapter(model(tmp_path))
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ServingError, match=rf"{name}.* It is no ordinary file\.|{name}: It is no ordinary file"):
        definition.read_definition(folder / name) if name == definition.NAME else model_folder.check_model(folder)


def test_a_pipe_that_looks_like_gguf_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.gguf")
    with pytest.raises(ServingError, match="holds no "):
        model_folder.check_gguf(tmp_path, "a.gguf")
    with pytest.raises(ServingError, match="holds no x"):
        model_folder.check_gguf(tmp_path, "x" * 300)


def test_what_is_nested_too_deeply_is_told_in_words(tmp_path):
    deep = b"[" * 100_000
    folder = model(tmp_path)
    (folder / "config.json").write_bytes(deep)
    (folder / model_folder.INDEX).write_bytes(deep)
    (folder / "model.safetensors").write_bytes(len(deep).to_bytes(8, "little") + deep)
    assert problems(folder) == [
        f"{folder}/config.json cannot be read: it is nested too deeply.",
        f"{folder}/{model_folder.INDEX} is no index of weights: it is nested too deeply.",
        f"{folder}/model.safetensors is no safetensors file: its header cannot be read.",
    ]


def test_of_many_missing_files_five_are_named(tmp_path):
    folder = model(tmp_path)
    for number in (1, 99999):
        safetensors(folder / f"model-{number:05d}-of-99999.safetensors")
    found = problems(folder)
    assert len(found) == 6
    assert found[0].startswith(f"{folder}/model-00002-of-99999.safetensors is missing, though model-99999-of-99999")
    assert found[5] == f"99992 more files of {folder} are missing."


def test_an_index_may_name_a_file_that_no_folder_can_hold(tmp_path):
    folder = model(tmp_path)
    (folder / model_folder.INDEX).write_text(json.dumps({"weight_map": {"a": "x" * 300}}))
    assert problems(folder) == [
        f"{folder}/{'x' * 300} is missing, though {model_folder.INDEX} names it. Copy the folder again."
    ]
