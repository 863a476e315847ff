"""Variant `sglang`: SGLang's server. Its /health asks the model for one token, unless that is switched off."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from flows.config import Config
from flows.serving.variants import own_parser
from flows.serving.variants.common import (
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
    Place,
)

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

MODULE = "sglang.launch_server"
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
    context_length: ContextTokens = 0
    tensor_parallel_size: TensorParallel = 1
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
    found += gpu_problems("serve.sglang.tensor_parallel_size", options.tensor_parallel_size)
    return found or _refused(config)


check_folder = check_whole_model


def _refused(config: ServeConfig) -> list[str]:
    """What SGLang's own parser does not take of the words that a person typed."""
    options, env = config.sglang, given(config)
    if not (options.extra_flags or env.get("SGLANG_EXTRA_ARGS")):
        return []
    if found := open_quotation("SGLANG_EXTRA_ARGS", env):
        return found
    where = "serve.sglang.extra_flags" if options.extra_flags else "SGLANG_EXTRA_ARGS"
    words = ["--model-path", "/", *_flags(options, env), *options.extra_flags]
    own = {name: value for name, value in env.items() if name.startswith("SGLANG_")}
    python = local_program(options.python) or sys.executable
    return own_parser.main_refuses(where, [python, MODULE, ""], words, own)


def launch(config: ServeConfig, place: Place) -> Launch:
    """The command that serves the folder under a free name."""
    options = config.sglang
    model = served_name(config, place) or config.name
    env = {name: value for name, value in given(config).items() if name.startswith("SGLANG_")}
    own = "python3" if place.container else sys.executable
    python = options.python if place.container else local_program(options.python)
    command = [python or own, "-m", MODULE]
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
        signs=ENGINE_SIGNS,
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
