"""Variant `llama-cpp`: llama.cpp's `llama-server` with the GGUF file of the model folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from flows.config import Config
from flows.serving import model_folder
from flows.serving.variants import own_parser
from flows.serving.variants.common import (
    ContextTokens,
    Flags,
    environment,
    flag_problems,
    local_program,
    program_problems,
    served_name,
)
from flows.serving.variants.launch import Launch, LogSign, Place

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

OURS = {
    "--host": "it is 127.0.0.1, or the container's",
    "--port": "set serve.port",
    "--model": "it is the model folder's GGUF file",
    "-m": "it is the model folder's GGUF file",
    "--alias": "set serve.served_model_name",
    "--api-key": "a key on the command line shows in the process list",
}


class LlamaCppOptions(Config):
    """llama.cpp: quantized GGUF files, on the CPU or with layers on a GPU."""

    program: str = Field(
        default="",
        title="Program",
        description="Path of llama-server; empty means the one on the PATH, in a container that of the official image.",
    )
    image: str = Field(
        default="ghcr.io/ggml-org/llama.cpp:server",
        title="Image",
        description="Container image, used in containers only.",
    )
    file: str = Field(
        default="",
        title="GGUF file",
        description="Name of the file in the model folder; empty means the first *.gguf by name.",
        pattern=r"^([^/\x00]*\.gguf)?$",
    )
    context_length: ContextTokens = 0
    gpu_layers: int = Field(
        default=0, ge=0, le=1000, title="GPU layers", description="Layers that are put on the GPU; 0 means none."
    )
    extra_flags: Flags = Field(
        default=[], title="Further flags", description="Further words of llama-server's command line, one an entry."
    )


def problems(config: ServeConfig, container: bool) -> list[str]:
    """What cannot work, told before anything starts."""
    options = config.llama_cpp
    found = flag_problems("serve.llama_cpp.extra_flags", options.extra_flags, OURS)
    if container:
        return found if options.image else [*found, "serve.llama_cpp.image: name an image that holds llama-server."]
    how = "Install llama.cpp (github.com/ggml-org/llama.cpp has builds), or give the program's path."
    program = local_program(options.program) or "llama-server"
    found += program_problems("serve.llama_cpp.program", program, how)
    if found or not options.extra_flags:
        return found
    # Words are read one after another, and --version ends it there.
    return own_parser.refused("serve.llama_cpp.extra_flags", [program, *options.extra_flags, "--version"], {})


def check_folder(config: ServeConfig, folder: Path) -> None:
    """Raise ServingError unless `folder` holds the GGUF file."""
    model_folder.check_gguf(folder, config.llama_cpp.file)


def launch(config: ServeConfig, place: Place) -> Launch:
    """The command that serves the file under a free name."""
    options = config.llama_cpp
    model = served_name(config, place) or config.name
    file = options.file or model_folder.gguf_files(place.model_dir)[0].name
    own = "/app/llama-server" if place.container else "llama-server"
    program = options.program if place.container else local_program(options.program)
    command = [program or own, "-m", f"{place.model_path}/{file}", "--alias", model]
    command += ["--host", place.host, "--port", str(place.port), "--threads", str(config.threads)]
    if options.context_length:
        command += ["--ctx-size", str(options.context_length)]
    if options.gpu_layers:
        command += ["--n-gpu-layers", str(options.gpu_layers)]
    return Launch(
        command=command + options.extra_flags,
        env=environment(config, place, model),
        model=model,
        ready_path="/health",
        image=options.image,
        port=place.port,
        startup_budget_s=600,
        signs=(LogSign("loading weights", r"load_tensors|loading model|llama_model_load"),),
    )
