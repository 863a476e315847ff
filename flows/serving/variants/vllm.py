"""Variant `vllm`: vLLM's OpenAI-compatible server, from an environment or image of its own.

    PYTHON -m vllm.entrypoints.openai.api_server --model DIR --served-model-name N --host 127.0.0.1 --port P

The module and not the `vllm` command: that one fails in the CPU build, which lacks the metadata it looks for.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from flows.config import Config
from flows.errors import ServingError
from flows.serving import model_folder
from flows.serving.variants import own_parser
from flows.serving.variants.common import (
    CHECKOUT,
    ContextTokens,
    Flags,
    TensorParallel,
    check_whole_model,
    environment,
    flag_problems,
    given,
    gpu_problems,
    local_program,
    open_quotation,
    program_problems,
    served_name,
)
from flows.serving.variants.launch import (
    ENGINE_SIGNS,
    Launch,
    Mount,
    Place,
)

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

MODULE = "vllm.entrypoints.openai.api_server"
OURS = {
    "--host": "it is 127.0.0.1, or the container's",
    "--port": "set serve.port",
    "--model": "it is the model folder",
    "--served-model-name": "set serve.served_model_name",
    "--api-key": "a key on the command line shows in the process list",
    "--lora-modules": "set serve.vllm.adapters",
}


class LoraAdapter(Config):
    """A LoRA adapter that is served beside its base model."""

    name: str = Field(
        title="Name",
        description="What clients call the adapter as their model: letters, digits, dot, dash and underscore.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
    )
    path: str = Field(
        min_length=1,
        title="Folder",
        description="Folder of this machine with adapter_config.json and adapter_model.safetensors.",
    )


class VllmOptions(Config):
    """vLLM: many requests at once, on GPUs or (CPU build) without."""

    python: str = Field(
        default="",
        title="Python interpreter",
        description="Interpreter of vLLM's own environment; empty means build/vllm/bin/python, which `make vllm` "
        "makes, or this interpreter if it holds vLLM; in a container python3.",
    )
    image: str = Field(
        default="vllm/vllm-openai:v0.32.0", title="Image", description="Container image, used in containers only."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        title="Number format",
        description="Format of weights and computation; auto takes the folder's. A CPU without AVX-512 wants float32.",
    )
    max_model_len: ContextTokens = 0
    tensor_parallel_size: TensorParallel = 1
    gpu_memory_utilization: float = Field(
        default=0,
        ge=0,
        le=1,
        title="GPU memory share",
        description="Share (0 to 1) of each GPU's memory that vLLM may take; 0 means vLLM's own default.",
    )
    quantization: Literal["", "awq", "gptq", "fp8", "bitsandbytes", "compressed-tensors", "modelopt", "torchao"] = (
        Field(
            default="",
            title="Quantization",
            description="How the weights are quantized; empty means as the folder's config.json says.",
        )
    )
    enable_lora: bool = Field(
        default=False, title="LoRA", description="Serve LoRA adapters beside the base model, each by its name."
    )
    adapters: list[LoraAdapter] = Field(
        default=[], title="LoRA adapters", description="Adapters that are there from the start.", max_length=100
    )
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = Field(
        default=16, title="Highest LoRA rank", description="The largest rank r of any adapter."
    )
    tool_call_parser: str = Field(
        default="",
        title="Tool call parser",
        description="Reads tool calls from answers, as hermes, llama3_json or mistral; empty means no tool calls.",
        pattern=r"^[A-Za-z0-9_.-]{0,64}$",
    )
    enforce_eager: bool = Field(
        default=False,
        title="Eager mode",
        description="Neither compile nor capture CUDA graphs: starts sooner, answers slower.",
    )
    cpu_kv_cache_gib: int = Field(
        default=0,
        ge=0,
        le=4096,
        title="CPU cache (GiB)",
        description="Memory for keys and values in GiB, CPU build only; 0 means vLLM's own default.",
    )
    extra_flags: Flags = Field(
        default=[],
        title="Further flags",
        description="Further words of vLLM's command line, one an entry, as --seed and then 7.",
    )


def problems(config: ServeConfig, container: bool) -> list[str]:
    """What cannot work, told before anything starts."""
    options = config.vllm
    found = flag_problems("serve.vllm.extra_flags", options.extra_flags, OURS) + _adapter_problems(config)
    if given(config).get("VLLM_PORT", "").startswith("tcp:"):
        found.append("VLLM_PORT is set to a tcp:// address (by a Kubernetes Service named vllm): unset it.")
    if container:
        return found if options.image else [*found, "serve.vllm.image: name an image that holds vLLM."]
    python = _python(config)
    if not python:
        how = "Make it with `make vllm` (CPU), or name the interpreter of an environment that holds vLLM."
        found.append(f"serve.vllm.python: there is no {CHECKOUT / 'build/vllm/bin/python'}. {how}")
    else:
        found += program_problems("serve.vllm.python", python, "Make one with `make vllm` (CPU).")
    found += gpu_problems("serve.vllm.tensor_parallel_size", options.tensor_parallel_size)
    return found or _refused(config, python)


check_folder = check_whole_model


def _refused(config: ServeConfig, python: str) -> list[str]:
    """What vLLM's own parser does not take of the words that a person typed; 8 s, once for the same words."""
    options, env = config.vllm, given(config)
    if not (options.extra_flags or env.get("VLLM_EXTRA_ARGS")):
        return []
    if found := open_quotation("VLLM_EXTRA_ARGS", env):
        return found
    where = "serve.vllm.extra_flags" if options.extra_flags else "VLLM_EXTRA_ARGS"
    words = ["--model", "/", *_flags(options, env), *options.extra_flags]
    own = {name: value for name, value in env.items() if name.startswith("VLLM_")} | _path(python)
    return own_parser.main_refuses(where, [python, MODULE, "uvloop.run"], words, own)


def launch(config: ServeConfig, place: Place) -> Launch:
    """The command that serves the folder; the name is free, and /v1/models shows the folder's path as its root."""
    options = config.vllm
    python = (options.python or "python3") if place.container else _python(config)
    model = served_name(config, place) or config.name
    env = {name: value for name, value in given(config).items() if name.startswith("VLLM_")}
    env |= environment(config, place, model) | {"VLLM_NO_USAGE_STATS": "1"}
    if options.cpu_kv_cache_gib:
        env["VLLM_CPU_KVCACHE_SPACE"] = str(options.cpu_kv_cache_gib)
    if not place.container:
        env = _path(python) | env
    command = [python, "-m", MODULE, "--model", place.model_path]
    command += ["--served-model-name", model, "--host", place.host, "--port", str(place.port)]
    mounts = [Mount(path, path) for path in map(_folder, options.adapters)] if place.container else []
    return Launch(
        command=[*command, *_flags(options, given(config)), *options.extra_flags],
        env=env,
        model=model,
        ready_path="/health",
        image=options.image,
        port=place.port,
        identity="root",
        root=place.model_path,
        mounts=tuple(mounts),
        startup_budget_s=1800,
        metrics_path="/metrics",
        signs=ENGINE_SIGNS,
    )


def _flags(options: VllmOptions, env: Mapping[str, str]) -> list[str]:
    """The presets as flags; those that are not set may come from Backend.AI's VLLM_* variables."""
    quantization = options.quantization or env.get("VLLM_QUANTIZATION", "")
    parallel = str(options.tensor_parallel_size) if options.tensor_parallel_size > 1 else env.get("VLLM_TP_SIZE", "")
    valued = {
        "--dtype": options.dtype if options.dtype != "auto" else "",
        "--max-model-len": str(options.max_model_len or ""),
        "--tensor-parallel-size": parallel,
        "--pipeline-parallel-size": env.get("VLLM_PP_SIZE", ""),
        "--gpu-memory-utilization": f"{options.gpu_memory_utilization:g}" if options.gpu_memory_utilization else "",
        "--quantization": quantization,
        "--tool-call-parser": options.tool_call_parser,
    }
    flags = [word for flag, value in valued.items() if value for word in (flag, value)]
    if options.tool_call_parser:
        flags.append("--enable-auto-tool-choice")
    if options.enforce_eager:
        flags.append("--enforce-eager")
    if options.enable_lora:
        flags += ["--enable-lora", "--max-lora-rank", str(options.max_lora_rank)]
        modules = [f"{adapter.name}={_folder(adapter)}" for adapter in options.adapters]
        flags += ["--lora-modules", *modules] if modules else []
    return flags + shlex.split(env.get("VLLM_EXTRA_ARGS", ""))


def _adapter_problems(config: ServeConfig) -> list[str]:
    options = config.vllm
    if options.adapters and not options.enable_lora:
        return ["serve.vllm.adapters: adapters are given, but serve.vllm.enable_lora is off. Switch it on."]
    taken = [config.served_model_name or config.name]
    found = []
    for index, adapter in enumerate(options.adapters):
        where = f"serve.vllm.adapters[{index}]"
        if adapter.name in taken:
            found.append(f"{where}.name: '{adapter.name}' is taken by the base model or another adapter.")
        taken.append(adapter.name)
        try:
            model_folder.check_adapter(Path(_folder(adapter)))
            rank = json.loads((Path(_folder(adapter)) / "adapter_config.json").read_bytes()).get("r", 0)
        except ServingError as error:
            found += [f"{where}.path: {line}" for line in str(error).splitlines()]
            continue
        if isinstance(rank, int) and rank > options.max_lora_rank:
            found.append(f"{where}: its rank is {rank}, more than serve.vllm.max_lora_rank={options.max_lora_rank}.")
    return found


def _path(python: str) -> dict[str, str]:
    """This project's packages are not for vLLM's environment."""
    return {} if python == sys.executable else {"PYTHONPATH": ""}


def _folder(adapter: LoraAdapter) -> str:
    return os.path.abspath(os.path.expanduser(adapter.path))


def _python(config: ServeConfig) -> str:
    """The interpreter on this machine, or an empty string if there is none."""
    own = CHECKOUT / "build" / "vllm" / "bin" / "python"
    if config.vllm.python:
        return local_program(config.vllm.python)
    if own.exists():
        return str(own)
    return sys.executable if importlib.util.find_spec("vllm") else ""
