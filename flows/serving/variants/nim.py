"""Variant `nim`: an NVIDIA NIM container (2.x), serving the model folder instead of a model of its own.

Readiness is /v1/health/ready: 503 while it downloads and loads.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import Field

from flows.config import Config
from flows.serving.variants.common import ContextTokens, Flags, check_whole_model, environment, given, served_name
from flows.serving.variants.launch import (
    ENGINE_SIGNS,
    Launch,
    Mount,
    Place,
)

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

CACHE = "/opt/nim/.cache"


class NimOptions(Config):
    """NVIDIA NIM: a container with engine and tuned settings, on NVIDIA GPUs."""

    image: str = Field(
        default="",
        title="Image",
        description="NIM image with its tag from NVIDIA's catalog, as nvcr.io/nim/meta/llama-3.1-8b-instruct:2.0.11; "
        "a model-free image serves any supported model folder.",
    )
    cache_folder: str = Field(
        default="",
        title="Cache folder",
        description="Folder of this machine that keeps downloads and compiled engines between starts; empty means "
        "none is kept.",
    )
    ngc_key_variable: str = Field(
        default="NGC_API_KEY",
        title="Variable of the NGC key",
        description="Name of the environment variable that holds the NGC key; only its name, never the key. Public "
        "images from 2.0.10 on need none.",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$",
    )
    max_model_len: ContextTokens = 0
    tensor_parallel_size: int = Field(
        default=0,
        ge=0,
        le=64,
        title="Tensor parallel (GPUs)",
        description="GPUs that share each layer of the model; 0 means as NIM's profile says.",
    )
    model_profile: str = Field(
        default="",
        title="Profile",
        description="Id of a NIM profile; empty means that NIM chooses one for the GPUs it finds.",
        pattern=r"^[A-Za-z0-9_.:-]{0,128}$",
    )
    passthrough_flags: Flags = Field(
        default=[], title="Further flags", description="Further words for the engine behind NIM, one an entry."
    )


def problems(config: ServeConfig, container: bool) -> list[str]:
    """What cannot work, told before anything starts."""
    found = []
    if not container:
        found.append("serve.variant: nim is a container image and does not run as a plain process; use a container.")
    if not config.nim.image:
        found.append(
            "serve.nim.image: name a NIM image with its tag, from https://catalog.ngc.nvidia.com (search: model-free "
            "NIM, to serve a model folder)."
        )
    return found


check_folder = check_whole_model


def launch(config: ServeConfig, place: Place) -> Launch:
    """The image's own command, told by its environment which folder to serve, under which name."""
    options = config.nim
    model = served_name(config, place) or config.name
    key = os.environ.get(options.ngc_key_variable, "")
    values = {
        "NIM_MODEL_PATH": place.model_path,
        "NIM_SERVED_MODEL_NAME": model,
        "NIM_SERVER_PORT": str(place.port),
        "NIM_CACHE_PATH": CACHE,
        "HF_HOME": f"{CACHE}/huggingface",
        "NIM_MAX_MODEL_LEN": str(options.max_model_len or ""),
        "NIM_TENSOR_PARALLEL_SIZE": str(options.tensor_parallel_size or ""),
        "NIM_MODEL_PROFILE": options.model_profile,
        "NIM_PASSTHROUGH_ARGS": " ".join(options.passthrough_flags),
        "NGC_API_KEY": key,
    }
    asked = {name: value for name, value in given(config).items() if name.startswith("NIM_")}
    env = asked | {name: value for name, value in values.items() if value}
    cache = os.path.abspath(os.path.expanduser(options.cache_folder)) if options.cache_folder else ""
    keyless = (
        f"The environment variable {options.ngc_key_variable} is not set. Public NIM images from 2.0.10 on need no "
        "key; older, private and gated ones do."
    )
    return Launch(
        command=None,
        env=environment(config, place, model) | env,
        model=model,
        ready_path="/v1/health/ready",
        metrics_path="/v1/metrics",
        image=options.image,
        port=place.port,
        mounts=(Mount(cache, CACHE, writable=True),) if cache else (),
        startup_budget_s=1800,
        signs=ENGINE_SIGNS,
        warnings=() if key else (keyless,),
    )
