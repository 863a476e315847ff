"""What variants share: the model's name, the environment they set and honour, checks of programs, flags and GPUs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from flows.serving import model_folder
from flows.serving.secret_names import SECRET
from flows.serving.variants.launch import Place

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

# What a parent process or a platform (Backend.AI) may have set for the server, and we read too.
HONOURED = re.compile(r"^(BACKEND_MODEL_NAME$|VLLM_|SGLANG_|NIM_|HF_HOME$)")

# Flags as typed on a command line, a word each.
Flags = Annotated[list[Annotated[str, Field(pattern=r"^[^\x00]*$", max_length=8192)]], Field(max_length=200)]
ContextTokens = Annotated[
    int,
    Field(
        ge=0,
        le=16_777_216,
        title="Longest context (tokens)",
        description="Tokens of a prompt and its answer together; 0 means as many as the model knows.",
    ),
]
TensorParallel = Annotated[
    int,
    Field(ge=1, le=64, title="Tensor parallel (GPUs)", description="GPUs that share each layer of the model."),
]
CHECKOUT = Path(__file__).parents[3]


def given(config: ServeConfig) -> dict[str, str]:
    """Environment variables that were set for the server: by this process's environment, then by the form."""
    inherited = {k: v for k, v in os.environ.items() if HONOURED.search(k) and not SECRET.search(k)}
    return inherited | dict(pair.split("=", 1) for pair in config.environment)


def served_name(config: ServeConfig, place: Place) -> str:
    """The name that was wished for: `served_model_name`, else BACKEND_MODEL_NAME; empty if neither is set."""
    name = config.served_model_name or given(config).get("BACKEND_MODEL_NAME", "")
    return name.replace("{model_path}", place.model_path)


def environment(config: ServeConfig, place: Place, model: str) -> dict[str, str]:
    """What every server gets, and what the user adds to it."""
    threads = str(config.threads)
    ours = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1"}
    # A local folder needs no network; without the second one huggingface_hub looks for updates on PyPI.
    ours |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    asked = dict(pair.split("=", 1) for pair in config.environment)
    secrets = {name: os.environ[name] for name in config.secret_variables if name in os.environ}
    backend = {"BACKEND_MODEL_NAME": model, "BACKEND_MODEL_PATH": place.model_path}
    return ours | asked | secrets | backend


def check_whole_model(config: ServeConfig, folder: Path) -> None:
    """Raise ServingError unless `folder` holds a whole model."""
    model_folder.check_model(folder, allow_pickle=config.allow_pickle)


def common_problems(config: ServeConfig) -> list[str]:
    """What is wrong with the settings that all variants share."""
    found = [
        f"serve.environment: {name} looks like a secret; set it in the worker's environment and name it in "
        "serve.secret_variables."
        for name in (pair.split("=", 1)[0] for pair in config.environment)
        if SECRET.search(name)
    ]
    missing = [name for name in config.secret_variables if name not in os.environ]
    return found + [
        f"serve.secret_variables: {name} is not set in the environment of this process ({os.getpid()}); set it, or "
        "take it off the list."
        for name in missing
    ]


def flag_problems(where: str, flags: list[str], ours: dict[str, str]) -> list[str]:
    """Further flags that would contradict what is set elsewhere; `ours` says for each flag where or why not."""
    return [
        f"{where}: {flag} cannot be given here: {ours[flag.split('=')[0]]}."
        for flag in flags
        if flag.split("=")[0] in ours
    ]


def open_quotation(name: str, env: Mapping[str, str]) -> list[str]:
    """A variable that holds words of a command line and cannot be taken apart."""
    try:
        shlex.split(env.get(name, ""))
    except ValueError as error:
        return [f"{name}: {error}. Close the quotation: {env[name]}"]
    return []


def local_program(text: str) -> str:
    """A program of this machine as it can be started from any folder: a path becomes absolute, a name stays one."""
    return os.path.abspath(os.path.expanduser(text)) if "/" in text or text.startswith("~") else text


def program_problems(where: str, program: str, remedy: str) -> list[str]:
    """A program that cannot be run on this machine."""
    if shutil.which(local_program(program)):
        return []
    return [f"{where}: there is no program '{program}' on this machine. {remedy}"]


def gpu_problems(where: str, wanted: int) -> list[str]:
    """More GPUs asked for than this machine shows. One is never refused: the engine may run on the CPU."""
    present = gpus()
    if wanted <= max(1, present):
        return []
    return [f"{where}: {wanted} GPUs are asked for, this machine shows {present}. Give at most {max(1, present)}."]


def gpus() -> int:
    """GPUs that a process started here may use: CUDA_VISIBLE_DEVICES if set, else those of the NVIDIA or AMD driver."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in visible.split(",")]
        return len([name for name in names if name and name != "-1"])
    nvidia = list(Path("/proc/driver/nvidia/gpus").glob("*"))
    return len(nvidia) or len(list(Path("/sys/module/amdgpu/drivers/pci:amdgpu").glob("*:*:*.*")))
