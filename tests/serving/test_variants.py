"""What each variant would run, word for word, and what it refuses before anything runs."""

import os
import re
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.errors import ServingError
from flows.progress import silent
from flows.serving.config import ServeConfig
from flows.serving.promotion import start_endpoint
from flows.serving.registry import VARIANTS
from flows.serving.runtimes import process
from flows.serving.start import problems
from flows.serving.variants import common, transformers_serve
from flows.serving.variants.launch import Mount, Place
from tests.serving.folders import adapter, model, sharded

ALWAYS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in list(os.environ):
        if common.HONOURED.search(name):
            monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder that every variant could serve."""
    model(tmp_path / "m")
    (tmp_path / "m" / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    (tmp_path / "m" / "model-definition.yaml").write_text(
        "models: [{name: m, model_path: /models, service: {start_command: [serve, '{port}'], port: 8080}}]"
    )
    return tmp_path / "m"


def here(folder, **settings):
    config = ServeConfig(**settings)
    return VARIANTS[config.variant].launch(config, process.place(folder, 8123))


def contained(folder, **settings):
    config = ServeConfig(**settings)
    return VARIANTS[config.variant].launch(config, Place(folder, "/models", "0.0.0.0", 8000, container=True))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("container", [False, True])
def test_a_model_folder_alone_resolves_or_it_is_said_what_is_needed(folder, variant, container):
    config = ServeConfig(variant=variant)
    VARIANTS[variant].check_folder(config, folder)
    needed = VARIANTS[variant].problems(config, container)
    for line in needed:
        assert line.startswith("serve."), "the field comes first"
        assert line.endswith(".")
    if not needed:
        launch = (contained if container else here)(folder, variant=variant)
        assert launch.command
        assert launch.port == (8000 if container else 8123)
        assert launch.startup_budget_s >= 120
        assert launch.env["BACKEND_MODEL_PATH"] == ("/models" if container else str(folder))
        assert (launch.model == "") == (launch.identity == "none")
        if container:
            assert launch.image
    else:
        assert (
            variant
            in {
                False: {"vllm", "nim", "command", "sglang", "llama-cpp"},
                True: {"transformers", "nim", "command", "custom"},
            }[container]
        )


def test_transformers(folder):
    launch = here(folder)
    assert launch.command == [
        *(sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)),
        *("--host", "127.0.0.1", "--port", "8123"),
    ]
    assert launch.env == ALWAYS | {"BACKEND_MODEL_NAME": str(folder), "BACKEND_MODEL_PATH": str(folder)}
    assert (launch.model, launch.identity, launch.ready_path) == (str(folder), "id", "/health")
    assert launch.startup_budget_s == 600
    options = {"dtype": "bfloat16", "device": "cuda:1", "continuous_batching": True, "extra_flags": ["--compile"]}
    assert here(folder, threads=3, transformers=options).command[9:] == [
        *("--dtype", "bfloat16", "--device", "cuda:1", "--continuous-batching", "--compile"),
    ]
    assert contained(folder).command[0] == "python3"
    assert contained(folder).model == "/models"


def test_transformers_with_a_name_given(folder):
    launch = here(folder, served_model_name="acme/trade-terms")
    python, dash_c, program, links, *words = launch.command
    assert (python, dash_c, program) == (sys.executable, "-c", transformers_serve.NAMED)
    assert re.fullmatch("served-as/[0-9a-f]{16}", links)
    assert words == ["acme/trade-terms", str(folder), "--host", "127.0.0.1", "--port", "8123"]
    assert (launch.model, launch.env["BACKEND_MODEL_NAME"]) == ("acme/trade-terms", "acme/trade-terms")
    assert contained(folder, served_model_name="a").command[3].startswith("/tmp/served-as/")
    assert here(folder, environment=["BACKEND_MODEL_NAME=b"]).model == "b"
    assert here(folder, served_model_name="{model_path}").command[1] == "-m"


def test_vllm_defaults(folder):
    launch = here(folder, variant="vllm", name="trade", vllm={"python": "/opt/vllm/bin/python"})
    assert launch.command == [
        *("/opt/vllm/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)),
        *("--served-model-name", "trade", "--host", "127.0.0.1", "--port", "8123"),
    ]
    assert launch.env == ALWAYS | {
        "BACKEND_MODEL_NAME": "trade",
        "BACKEND_MODEL_PATH": str(folder),
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONPATH": "",
    }
    assert (launch.model, launch.identity, launch.root) == ("trade", "root", str(folder))
    assert (launch.ready_path, launch.startup_budget_s) == ("/health", 1800)
    inside = contained(folder, variant="vllm")
    assert inside.command[:5] == ["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "/models"]
    assert inside.image == "vllm/vllm-openai:v0.32.0"


def test_vllm_presets_and_adapters(folder, tmp_path):
    adapter(tmp_path / "style")
    options = {
        "python": "py",
        "dtype": "float32",
        "max_model_len": 2048,
        "tensor_parallel_size": 2,
        "gpu_memory_utilization": 0.85,
        "quantization": "fp8",
        "enable_lora": True,
        "adapters": [{"name": "style", "path": str(tmp_path / "style")}],
        "max_lora_rank": 64,
        "tool_call_parser": "hermes",
        "enforce_eager": True,
        "cpu_kv_cache_gib": 1,
        "extra_flags": ["--seed", "7"],
    }
    launch = here(folder, variant="vllm", served_model_name="acme/trade", vllm=options)
    assert launch.command[5:] == [
        *("--served-model-name", "acme/trade", "--host", "127.0.0.1", "--port", "8123", "--dtype", "float32"),
        *("--max-model-len", "2048", "--tensor-parallel-size", "2", "--gpu-memory-utilization", "0.85"),
        *("--quantization", "fp8", "--tool-call-parser", "hermes", "--enable-auto-tool-choice", "--enforce-eager"),
        *("--enable-lora", "--max-lora-rank", "64", "--lora-modules", f"style={tmp_path / 'style'}", "--seed", "7"),
    ]
    assert launch.env["VLLM_CPU_KVCACHE_SPACE"] == "1"
    mounts = contained(folder, variant="vllm", vllm=options).mounts
    assert mounts == (Mount(str(tmp_path / "style"), str(tmp_path / "style"), writable=False),)


def test_the_variables_of_backend_ai_are_honoured_after_the_form(folder, monkeypatch):
    for name, value in {
        "BACKEND_MODEL_NAME": "from-the-platform",
        "VLLM_QUANTIZATION": "awq",
        "VLLM_TP_SIZE": "4",
        "VLLM_EXTRA_ARGS": "--seed 7 --chat-template 'a b'",
        "VLLM_LOGGING_LEVEL": "DEBUG",
        "VLLM_API_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    vllm = {"python": "py"}
    launch = here(folder, variant="vllm", vllm=vllm)
    assert launch.model == launch.env["BACKEND_MODEL_NAME"] == "from-the-platform"
    assert launch.command[11:] == [
        *("--tensor-parallel-size", "4", "--quantization", "awq", "--seed", "7", "--chat-template", "a b")
    ]
    assert launch.env["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert "secret" not in str([launch.env, launch.command])
    form = here(
        folder,
        variant="vllm",
        served_model_name="mine",
        environment=["VLLM_LOGGING_LEVEL=ERROR", "VLLM_EXTRA_ARGS=", "A=b=c"],
        vllm=vllm | {"quantization": "fp8", "tensor_parallel_size": 2},
    )
    assert form.command[11:] == ["--tensor-parallel-size", "2", "--quantization", "fp8"]
    assert (form.model, form.env["VLLM_LOGGING_LEVEL"], form.env["A"]) == ("mine", "ERROR", "b=c")


def test_sglang(folder):
    launch = here(folder, variant="sglang", sglang={"python": "py"})
    assert launch.command == [
        *("py", "-m", "sglang.launch_server", "--model-path", str(folder), "--served-model-name", "domain-model"),
        *("--host", "127.0.0.1", "--port", "8123"),
    ]
    assert (launch.ready_path, launch.startup_budget_s, launch.identity) == ("/health", 1800, "id")
    options = {"dtype": "float16", "context_length": 4096, "tensor_parallel_size": 2, "mem_fraction_static": 0.5,
               "quantization": "awq", "tool_call_parser": "qwen25", "extra_flags": ["--log-level", "info"]}  # fmt: skip
    assert here(folder, variant="sglang", sglang=options).command[11:] == [
        *("--dtype", "float16", "--context-length", "4096", "--tp-size", "2", "--mem-fraction-static", "0.5"),
        *("--quantization", "awq", "--tool-call-parser", "qwen25", "--log-level", "info"),
    ]
    assert contained(folder, variant="sglang").command[0] == "python3"


def test_llama_cpp(folder):
    launch = here(folder, variant="llama-cpp", threads=2)
    assert launch.command == [
        *("llama-server", "-m", f"{folder}/model.gguf", "--alias", "domain-model"),
        *("--host", "127.0.0.1", "--port", "8123", "--threads", "2"),
    ]
    options = {"file": "other.gguf", "context_length": 512, "gpu_layers": 9, "extra_flags": ["--mlock"]}
    inside = contained(folder, variant="llama-cpp", llama_cpp=options)
    assert inside.command == [
        *("/app/llama-server", "-m", "/models/other.gguf", "--alias", "domain-model", "--host", "0.0.0.0"),
        *("--port", "8000", "--threads", "1", "--ctx-size", "512", "--n-gpu-layers", "9", "--mlock"),
    ]
    assert inside.image == "ghcr.io/ggml-org/llama.cpp:server"


def test_nim(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("NGC_API_KEY", raising=False)
    options = {"image": "nvcr.io/nim/x:2.0.11", "cache_folder": str(tmp_path)}
    launch = contained(folder, variant="nim", name="trade", nim=options)
    assert (launch.command, launch.image) == (None, "nvcr.io/nim/x:2.0.11")
    assert launch.env == ALWAYS | {
        "BACKEND_MODEL_NAME": "trade",
        "BACKEND_MODEL_PATH": "/models",
        "NIM_MODEL_PATH": "/models",
        "NIM_SERVED_MODEL_NAME": "trade",
        "NIM_SERVER_PORT": "8000",
        "NIM_CACHE_PATH": "/opt/nim/.cache",
        "HF_HOME": "/opt/nim/.cache/huggingface",
    }
    assert launch.mounts == (Mount(str(tmp_path), "/opt/nim/.cache", writable=True),)
    assert (launch.ready_path, launch.startup_budget_s) == ("/v1/health/ready", 1800)
    (warning,) = launch.warnings
    assert "NGC_API_KEY is not set" in warning
    assert VARIANTS["nim"].problems(ServeConfig(variant="nim", nim=options), container=True) == []
    monkeypatch.setenv("MY_NGC", "nvapi-1")
    more = options | {"ngc_key_variable": "MY_NGC", "max_model_len": 2048, "tensor_parallel_size": 2,
                      "model_profile": "abc", "passthrough_flags": ["--seed", "7"]}  # fmt: skip
    keyed = contained(folder, variant="nim", nim=more)
    assert keyed.warnings == ()
    assert {name: value for name, value in keyed.env.items() if name not in launch.env} == {
        "NGC_API_KEY": "nvapi-1",
        "NIM_MAX_MODEL_LEN": "2048",
        "NIM_TENSOR_PARALLEL_SIZE": "2",
        "NIM_MODEL_PROFILE": "abc",
        "NIM_PASSTHROUGH_ARGS": "--seed 7",
    }


def test_command(folder):
    line = "serve '{model_path}/a b' --name {model_name} --at {host}:{port} '{json}'"
    launch = here(folder, variant="command", command={"command_line": line})
    assert launch.command == [*("serve", f"{folder}/a b", "--name", "domain-model", "--at", "127.0.0.1:8123", "{json}")]
    assert (launch.ready_path, launch.model, launch.identity, launch.startup_budget_s) == ("", "", "none", 120)
    assert launch.env["PORT"] == "8123"
    options = {"command_line": "serve", "port": 9000, "health_path": "/healthz"}
    fixed = here(folder, variant="command", served_model_name="{model_path}", command=options)
    assert (fixed.command, fixed.port, fixed.env["PORT"]) == (["serve"], 9000, "9000")
    assert (fixed.ready_path, fixed.model) == ("/healthz", str(folder))
    image = contained(folder, variant="command", command={"image": "a/b:1", "port": 80})
    assert (image.command, image.image, image.port) == (None, "a/b:1", 80)


def told(**settings) -> str:
    return "\n".join(problems(ServeConfig(**settings)))


PYTHON = {"python": sys.executable}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"served_model_name": "/mine"}, "serve.served_model_name: '/mine': `transformers serve` takes no name with a"),
        ({"environment": ["BACKEND_MODEL_NAME=a@b"]}, "'a@b': `transformers serve` takes no name"),
        ({"transformers": {"extra_flags": ["--port=1"]}}, "--port=1 cannot be given here: set serve.port."),
        ({"transformers": {"python": "/no/python"}}, "there is no program '/no/python' on this machine"),
        ({"variant": "vllm", "vllm": PYTHON | {"extra_flags": ["--api-key", "x"]}}, "shows in the process list"),
        ({"variant": "vllm", "vllm": PYTHON | {"tensor_parallel_size": 64}},
         "serve.vllm.tensor_parallel_size: 64 GPUs are asked for, this machine shows"),
        ({"variant": "vllm", "vllm": PYTHON | {"adapters": [{"name": "a", "path": "/x"}]}}, "enable_lora is off"),
        ({"variant": "vllm", "vllm": PYTHON | {"enable_lora": True, "adapters": [{"name": "a", "path": "/no"}]}},
         "serve.vllm.adapters[0].path: There is no folder /no."),
        ({"variant": "vllm", "environment": ["VLLM_PORT=tcp://10.0.0.1:80"]}, "Kubernetes Service named vllm"),
        ({"variant": "nim"}, "does not run as a plain process"),
        ({"variant": "sglang"}, "this environment holds no SGLang. Make one"),
        ({"variant": "llama-cpp", "llama_cpp": {"program": "/no/llama"}}, "there is no program '/no/llama'"),
        ({"variant": "command"}, "serve.command.command_line: say what to run"),
        ({"variant": "command", "command": {"command_line": "no-such-program {port}"}}, "no program 'no-such-program'"),
        ({"variant": "command", "command": {"command_line": "sh 'open"}}, "No closing quotation"),
        ({"variant": "command", "command": {"command_line": "sh -c true"}}, "set the port that the command listens on"),
        ({"environment": ["HF_TOKEN=x"]}, "HF_TOKEN looks like a secret"),
        ({"secret_variables": ["NO_SUCH_TOKEN"]}, "NO_SUCH_TOKEN is not set in the environment"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_starts(settings, message, folder, tmp_path):
    assert message in told(**settings)
    with pytest.raises(ServingError) as error:
        start_endpoint(ServeConfig(**settings), folder, tmp_path / "endpoints", silent)
    assert message in str(error.value)
    assert not (tmp_path / "endpoints").exists()


def test_settings_without_a_problem_have_none():
    assert problems(ServeConfig()) == []
    assert told(variant="command", command={"command_line": "sh -c 'serve --port $PORT'"}) == ""


def test_adapters_are_looked_at(tmp_path):
    adapter(tmp_path / "a", rank=64)
    path = {"path": str(tmp_path / "a")}
    lora = PYTHON | {"enable_lora": True, "adapters": [{"name": "a"} | path, {"name": "a"} | path]}
    assert told(variant="vllm", vllm=lora).splitlines() == [
        "serve.vllm.adapters[0]: its rank is 64, more than serve.vllm.max_lora_rank=16.",
        "serve.vllm.adapters[1].name: 'a' is taken by the base model or another adapter.",
        "serve.vllm.adapters[1]: its rank is 64, more than serve.vllm.max_lora_rank=16.",
    ]
    assert "'a' is taken" in told(variant="vllm", name="a", vllm=lora | {"max_lora_rank": 64})


def test_a_program_given_by_path_is_found_from_any_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("bin/server", "./bin/server", "~/bin/server"):
        launch = here(folder, variant="command", command={"command_line": f"{given} {{port}}"})
        assert launch.command == [str(tmp_path / "bin/server"), "8123"]
        assert here(folder, variant="vllm", vllm={"python": given}).command[0] == str(tmp_path / "bin/server")


def test_gpus_are_counted_as_the_process_would_see_them(monkeypatch):
    for visible, count in {"": 0, "-1": 0, "0,3": 2, "MIG-a,MIG-b, MIG-c": 3}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert common.gpus() == count
        assert common.gpu_problems("x", max(1, count)) == []
        assert len(common.gpu_problems("x", count + 2)) == 1


def test_a_secret_reaches_the_server_and_no_command_line(folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    launch = here(folder, secret_variables=["HF_TOKEN"])
    assert launch.env["HF_TOKEN"] == "hf_secret"
    assert "hf_secret" not in str(launch)
    assert "HF_TOKEN" not in here(folder).env


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "../a"}, "name"),
        ({"name": "모델"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"served_model_name": "a b"}, "served_model_name"),
        ({"served_model_name": "../a"}, "served_model_name"),
        ({"served_model_name": "모델"}, "served_model_name"),
        ({"served_model_name": "--flag"}, "served_model_name"),
        ({"variant": "tgi"}, "variant"),
        ({"startup_budget_s": -1}, "startup_budget_s"),
        ({"environment": ["no assignment"]}, "environment.0"),
        ({"secret_variables": ["a=b"]}, "secret_variables.0"),
        ({"vllm": {"gpu_memory_utilization": 1.7}}, "vllm.gpu_memory_utilization"),
        ({"vllm": {"max_lora_rank": 24}}, "vllm.max_lora_rank"),
        ({"vllm": {"dtype": "int3"}}, "vllm.dtype"),
        ({"vllm": {"tensor_parallel_size": 0}}, "vllm.tensor_parallel_size"),
        ({"vllm": {"max_model_len": -5}}, "vllm.max_model_len"),
        ({"vllm": {"adapters": [{"name": "a=b", "path": "/x"}]}}, "vllm.adapters.0.name"),
        ({"vllm": {"adapters": [{"name": "a"}]}}, "vllm.adapters.0.path"),
        ({"vllm": {"max_len": 5}}, "vllm.max_len"),
        ({"vllm": {"extra_flags": ["a\0b"]}}, "vllm.extra_flags.0"),
        ({"vllm": {"extra_flags": ["x" * 10_000]}}, "vllm.extra_flags.0"),
        ({"vllm": {"extra_flags": "--seed 7"}}, "vllm.extra_flags"),
        ({"command": {"command_line": "serve \0"}}, "command.command_line"),
        ({"docker": {"gpus": "many"}}, "docker.gpus"),
        ({"nim": {"ngc_key_variable": "nvapi-123"}}, "nim.ngc_key_variable"),
        ({"command": {"health_path": "health"}}, "command.health_path"),
        ({"llama_cpp": {"file": "../x.gguf"}}, "llama_cpp.file"),
        ({"custom": {"definition": "../x.yaml"}}, "custom.definition"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field(settings, field):
    with pytest.raises(ValidationError) as error:
        ServeConfig(**settings)
    assert [".".join(map(str, problem["loc"])) for problem in error.value.errors()] == [field]


def test_names_are_refused_in_words():
    with pytest.raises(ValidationError, match=r"'../a' may hold lower-case letters a to z, digits and dashes"):
        ServeConfig(name="../a")
    with pytest.raises(ValidationError, match=r"the model name 'a b' may hold letters a to z, digits and"):
        ServeConfig(served_model_name="a b")


@pytest.mark.parametrize("variant", ["transformers", "vllm", "sglang", "nim"])
def test_a_torn_folder_is_refused_before_anything_starts(tmp_path, variant):
    sharded(tmp_path / "m")
    (tmp_path / "m" / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ServingError, match="model-00002-of-00003.safetensors is missing"):
        VARIANTS[variant].check_folder(ServeConfig(variant=variant), tmp_path / "m")
    if variant == "transformers":
        with pytest.raises(ServingError, match="model-00002-of-00003.safetensors is missing"):
            start_endpoint(ServeConfig(), tmp_path / "m", tmp_path / "endpoints", silent)
        assert not (tmp_path / "endpoints").exists()


@pytest.mark.parametrize("variant", ["transformers", "vllm", "sglang", "nim", "command", "custom"])
def test_pickles_are_refused_by_every_variant_unless_allowed(folder, variant):
    (folder / "extra.bin").write_bytes(b"")
    with pytest.raises(ServingError, match=r"extra\.bin is a Python pickle"):
        VARIANTS[variant].check_folder(ServeConfig(variant=variant), folder)
    VARIANTS[variant].check_folder(ServeConfig(variant=variant, allow_pickle=True), folder)
