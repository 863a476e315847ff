"""Variant `sglang`: SGLang's server. Its /health asks the model for one token, unless that is switched off."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from flows.config import Config
from flows.serving import model_folder
from flows.serving.variants.common import (
    Flags,
    environment,
    flag_problems,
    given,
    gpu_problems,
    local_program,
    program_problems,
    served_name,
)
from flows.serving.variants.launch import (
    CAPTURING,
    COMPILING,
    DOWNLOADING,
    LOADING,
    LOADING_STARTED,
    Launch,
    Place,
)

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

OURS = {
    "--host": "it is 127.0.0.1, or the container's",
    "--port": "set serve.port",
    "--model-path": "it is the model folder",
    "--model": "it is the model folder",
    "--served-model-name": "set serve.served_model_name",
    "--api-key": "a key on the command line shows in the process list",
}


class SglangOptions(Config):
    """SGLang: many requests at once, on GPUs."""

    python: str = Field(
        default="",
        title="Python interpreter",
        description="Interpreter of SGLang's own environment; empty means this one if it holds SGLang; in a container "
        "python3.",
    )
    image: str = Field(
        default="lmsysorg/sglang:latest", title="Image", description="Container image, used in containers only."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        title="Number format",
        description="Format of weights and computation; auto takes the folder's.",
    )
    context_length: int = Field(
        default=0,
        ge=0,
        le=16_777_216,
        title="Longest context (tokens)",
        description="Tokens of a prompt and its answer together; 0 means as many as the model knows.",
    )
    tensor_parallel_size: int = Field(
        default=1, ge=1, le=64, title="Tensor parallel (GPUs)", description="GPUs that share each layer of the model."
    )
    mem_fraction_static: float = Field(
        default=0,
        ge=0,
        le=1,
        title="GPU memory share",
        description="Share (0 to 1) of each GPU's memory for weights and cache; 0 means SGLang's own default.",
    )
    quantization: Literal["", "awq", "gptq", "fp8", "bitsandbytes", "compressed-tensors", "modelopt"] = Field(
        default="",
        title="Quantization",
        description="How the weights are quantized; empty means as the folder's config.json says.",
    )
    tool_call_parser: str = Field(
        default="",
        title="Tool call parser",
        description="Reads tool calls from answers, as qwen25, llama3 or mistral; empty means no tool calls.",
        pattern=r"^[A-Za-z0-9_.-]{0,64}$",
    )
    extra_flags: Flags = Field(
        default=[],
        title="Further flags",
        description="Further words of SGLang's command line, one an entry.",
    )


def problems(config: ServeConfig, container: bool) -> list[str]:
    """What cannot work, told before anything starts."""
    options = config.sglang
    found = flag_problems("serve.sglang.extra_flags", options.extra_flags, OURS)
    if container:
        return found if options.image else [*found, "serve.sglang.image: name an image that holds SGLang."]
    if options.python:
        found += program_problems("serve.sglang.python", options.python, "Give the path of a Python interpreter.")
    elif not importlib.util.find_spec("sglang"):
        found.append(
            "serve.sglang.python: this environment holds no SGLang. Make one of its own (python3 -m venv DIR; "
            "DIR/bin/pip install sglang) and give DIR/bin/python."
        )
    return found + gpu_problems("serve.sglang.tensor_parallel_size", options.tensor_parallel_size)


def check_folder(config: ServeConfig, folder: Path) -> None:
    """Raise ServingError unless `folder` holds a whole model."""
    model_folder.check_model(folder, allow_pickle=config.allow_pickle)


def launch(config: ServeConfig, place: Place) -> Launch:
    """The command that serves the folder under a free name."""
    options = config.sglang
    model = served_name(config, place) or config.name
    env = {name: value for name, value in given(config).items() if name.startswith("SGLANG_")}
    own = "python3" if place.container else sys.executable
    python = options.python if place.container else local_program(options.python)
    command = [python or own, "-m", "sglang.launch_server"]
    command += ["--model-path", place.model_path, "--served-model-name", model]
    command += ["--host", place.host, "--port", str(place.port)]
    return Launch(
        command=[*command, *_flags(options, given(config)), *options.extra_flags],
        env=env | environment(config, place, model),
        model=model,
        ready_path="/health",
        image=options.image,
        port=place.port,
        ready_timeout_s=15,  # the path asks the model itself
        startup_budget_s=1800,
        signs=(DOWNLOADING, LOADING, CAPTURING, COMPILING, LOADING_STARTED),
    )


def _flags(options: SglangOptions, env: Mapping[str, str]) -> list[str]:
    """The presets as flags; those that are not set may come from Backend.AI's SGLANG_* variables."""
    parallel = str(options.tensor_parallel_size) if options.tensor_parallel_size > 1 else env.get("SGLANG_TP_SIZE", "")
    valued = {
        "--dtype": options.dtype if options.dtype != "auto" else "",
        "--context-length": str(options.context_length or ""),
        "--tp-size": parallel,
        "--pp-size": env.get("SGLANG_PP_SIZE", ""),
        "--mem-fraction-static": f"{options.mem_fraction_static:g}" if options.mem_fraction_static else "",
        "--quantization": options.quantization or env.get("SGLANG_QUANTIZATION", ""),
        "--tool-call-parser": options.tool_call_parser,
    }
    flags = [word for flag, value in valued.items() if value for word in (flag, value)]
    return flags + shlex.split(env.get("SGLANG_EXTRA_ARGS", ""))
