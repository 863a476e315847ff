"""Variant `custom`: the model folder's `model-definition.yaml` (Backend.AI's format) says what to run.

`/models`, where Backend.AI mounts the folder, stands for the folder wherever it is; so `model_path: /models/gguf` is
its subfolder gguf. Beside {model_path} the placeholders {model_name}, {host} and {port} are filled in, and PORT is in
the environment: a command that uses {port} or $PORT can be started beside the one it replaces, while any other keeps
the definition's port to itself. In a container the folder is at /models too, for commands that name it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import Field

from flows.config import Config
from flows.errors import ServingError
from flows.placeholders import fill
from flows.serving import definition, model_folder
from flows.serving.pre_start import check_actions, shell_lines
from flows.serving.variants.command import PORT_IS_FREE
from flows.serving.variants.common import environment, program_problems, served_name
from flows.serving.variants.launch import (
    ENGINE_SIGNS,
    Launch,
    Mount,
    Place,
)

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

MOUNT = PurePosixPath("/models")


class CustomOptions(Config):
    """What a model definition in the model folder says."""

    definition: str = Field(
        default=definition.NAME,
        title="Definition file",
        description="Name of the definition file in the model folder.",
        pattern=r"^[^/\x00]+\.ya?ml$",
    )
    image: str = Field(default="", title="Image", description="Container image that the definition's command runs in.")


def problems(config: ServeConfig, container: bool) -> list[str]:
    """What cannot work, told before anything starts."""
    if container and not config.custom.image:
        return ["serve.custom.image: name the image that the definition's command runs in."]
    return []


def check_folder(config: ServeConfig, folder: Path) -> None:
    """Raise ServingError unless the definition is right and the weights, if there are any, are whole."""
    path = folder / config.custom.definition
    service = definition.read_definition(path).service
    check_actions(str(path), service.pre_start_actions)
    own_command = config.runtime != "process" and not service.pre_start_actions
    if not service.start_command and not own_command:
        raise ServingError(f"{path}: models[0].service.start_command is empty; say what to run.")
    if isinstance(service.start_command, str) and not service.shell:
        _words(service.start_command)
    if isinstance(service.start_command, str) and service.shell and config.runtime == "process":
        missing = program_problems(f"{path}: models[0].service.shell", service.shell, "Name another shell, or null.")
        if missing:
            raise ServingError(missing[0])
    model_folder.check_weights(folder, allow_pickle=config.allow_pickle)


def launch(config: ServeConfig, place: Place) -> Launch:
    """The definition's command after its pre-start actions; UNVERIFIED at best if its health check is off."""
    model = definition.read_definition(place.model_dir / config.custom.definition)
    service, health = model.service, model.service.health_check or definition.HealthCheck()
    inside = _inside(model.model_path, place)
    name = served_name(config, place)
    port = place.port if PORT_IS_FREE.search(str(service.start_command)) else service.port
    values = {"model_path": inside, "model_name": name or model.name, "host": place.host, "port": str(port)}
    env = environment(config, place, values["model_name"]) | {"PORT": str(port), "BACKEND_MODEL_PATH": inside}
    return Launch(
        command=_command(service, values),
        env=env,
        model=name,
        ready_path=health.path if health.enable else "",
        image=config.custom.image,
        port=port,
        identity="none",
        mounts=(Mount(str(place.model_dir), str(MOUNT)),) if place.container and place.model_path != str(MOUNT) else (),
        ready_status=health.expected_status_code,
        ready_timeout_s=health.max_wait_time,
        startup_budget_s=health.initial_delay,
        probe_interval_s=health.interval,
        failure_threshold=health.max_retries,
        signs=ENGINE_SIGNS,
    )


def _inside(model_path: str, place: Place) -> str:
    """The definition's model path as the server sees it; a relative one is below the model folder."""
    path = PurePosixPath(model_path)
    below = path.relative_to(MOUNT) if path.is_relative_to(MOUNT) else path
    if ".." in below.parts:
        raise ServingError(f"models[0].model_path '{model_path}' leaves the model folder; take out the '..'.")
    return str(PurePosixPath(place.model_path) / below)


def _check_plain(values: dict[str, str]) -> None:
    """Filled into a shell's text, a name must not be taken apart by the shell."""
    for name, value in values.items():
        if re.search(r"[^\w@%+=:,./~-]", value):
            raise ServingError(
                f"models[0].service.start_command: the {name} '{value}' holds a space or another sign that the shell "
                "takes apart. Give start_command as a list, a word an entry, or rename the folder."
            )


def _words(command: str) -> list[str]:
    """The words of a command that no shell takes apart.

    Raises:
        ServingError: a quotation in it has no end.
    """
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ServingError(f"models[0].service.start_command: {command[:200]!r}: {error}. Close it.") from error


def _command(service: definition.Service, values: dict[str, str]) -> list[str] | None:
    start = service.start_command
    if not start:
        return None
    if isinstance(start, list):
        words = [fill(word, **values) for word in start]
    elif service.shell:
        _check_plain(values)
        words = [service.shell, "-c", fill(start, **values)]
    else:
        words = [fill(word, **values) for word in _words(start)]
    before = shell_lines(service.pre_start_actions, lambda text: fill(text, **values))
    return ["/bin/sh", "-c", "\n".join([*before, f"exec {shlex.join(words)}"])] if before else words
