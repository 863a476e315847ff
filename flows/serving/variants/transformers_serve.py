"""Variant `transformers`: the OpenAI-compatible server of the transformers package, pinned to one model folder."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from flows.config import Config
from flows.serving.variants import own_parser
from flows.serving.variants.common import (
    Flags,
    check_whole_model,
    environment,
    flag_problems,
    given,
    local_program,
    program_problems,
    served_name,
)
from flows.serving.variants.launch import Launch, Place
from flows.store.digest import value_digest

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

# The server knows a model by its path alone. So a name that was wished for is made a path: a link of that name in a
# folder of its own, which becomes the working folder. Words: the folder, the link's name, the model's path, flags.
NAME = re.compile(r"[\w.:+-]+(/[\w.:+-]+)*", re.ASCII)
NAMED = """\
import os, runpy, sys
folder, name, model = sys.argv[1:4]
link = os.path.join(folder, name)
os.makedirs(os.path.dirname(link), exist_ok=True)
os.path.lexists(link) or os.symlink(model, link)
os.chdir(folder)
sys.argv = ["transformers", "serve", name, *sys.argv[4:]]
runpy.run_module("transformers.cli.transformers", run_name="__main__")
"""
OURS = {"--host": "it is 127.0.0.1, or the container's", "--port": "set serve.port", "--dtype": "set dtype above"}


class TransformersOptions(Config):
    """`transformers serve`, on CPU or GPU."""

    python: str = Field(
        default="",
        title="Python interpreter",
        description="Interpreter whose environment holds transformers[serving]; empty means the one of this project, "
        "in a container python3.",
    )
    image: str = Field(
        default="", title="Image", description="Container image with transformers[serving]; needed in containers only."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", title="Number format", description="Format of the weights in memory; auto takes the folder's."
    )
    device: str = Field(
        default="auto",
        title="Device",
        description="Where the model runs: auto, cpu, cuda or cuda:N with N the index of a GPU.",
        pattern=r"^(auto|cpu|mps|cuda|cuda:\d{1,2})$",
    )
    continuous_batching: bool = Field(
        default=False,
        title="Continuous batching",
        description="Answer requests together; takes several GiB more memory and pays off with many clients.",
    )
    extra_flags: Flags = Field(
        default=[],
        title="Further flags",
        description="Further words of the command line of `transformers serve`, one an entry, as --compile.",
    )


def problems(config: ServeConfig, container: bool) -> list[str]:
    """What cannot work, told before anything starts."""
    options = config.transformers
    found = flag_problems("serve.transformers.extra_flags", options.extra_flags, OURS)
    wished = config.served_model_name or given(config).get("BACKEND_MODEL_NAME", "")
    if wished not in ("", "{model_path}") and not NAME.fullmatch(wished):
        found.append(
            f"serve.served_model_name: {wished[:80]!r}: `transformers serve` takes no name with a slash at its ends, "
            "two in a row, or an @. Give one as acme/trade-terms."
        )
    if container and not options.image:
        found.append("serve.transformers.image: name an image that holds transformers[serving].")
    if not container and options.python:
        found += program_problems("serve.transformers.python", options.python, "Give the path of a Python interpreter.")
    if found or container or not options.extra_flags:
        return found
    command = [local_program(options.python) or sys.executable, "-c", own_parser.TRANSFORMERS, "/"]
    return own_parser.refused("serve.transformers.extra_flags", [*command, *options.extra_flags], {})


check_folder = check_whole_model


def launch(config: ServeConfig, place: Place) -> Launch:
    """The command that serves the folder; clients name the folder's path as their model, unless a name is given."""
    options = config.transformers
    own = "python3" if place.container else sys.executable
    python = (options.python if place.container else local_program(options.python)) or own
    name = served_name(config, place) or place.model_path
    if name == place.model_path:
        command = [python, "-m", "transformers.cli.transformers", "serve", name]
    else:
        # Of a process the working folder is the one of the logs, in the store; in a container it may not be writable.
        links = ("/tmp/" if place.container else "") + f"served-as/{value_digest([name, place.model_path])[:16]}"
        command = [python, "-c", NAMED, links, name, place.model_path]
    command += ["--host", place.host, "--port", str(place.port)]
    if options.dtype != "auto":
        command += ["--dtype", options.dtype]
    if options.device != "auto":
        command += ["--device", options.device]
    if options.continuous_batching:
        command.append("--continuous-batching")
    return Launch(
        command=command + options.extra_flags,
        env=environment(config, place, name),
        model=name,
        ready_path="/health",
        image=options.image,
        port=place.port,
        startup_budget_s=600,
    )
