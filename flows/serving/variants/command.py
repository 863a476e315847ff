"""Variant `command`: any command line or image that serves an OpenAI-compatible API; it is taken as it is.

    transformers serve {model_path} --host {host} --port {port}

Without a health path nobody can say that it serves, so its endpoint is UNVERIFIED.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from flows.config import Config
from flows.placeholders import fill
from flows.serving import model_folder
from flows.serving.variants.common import environment, local_program, program_problems, served_name
from flows.serving.variants.launch import Launch, Place

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

PORT_IS_FREE = re.compile(r"\{port\}|\$\{?PORT\b")


class CommandOptions(Config):
    """A server of your own: a command line, an image, or a command line in an image."""

    command_line: str = Field(
        default="",
        title="Command line",
        description="Program and its arguments, without a shell; {model_path}, {model_name}, {host} and {port} are "
        "filled in. Empty means the image's own command.",
        pattern=r"^[^\x00]*$",
        max_length=8192,
    )
    image: str = Field(
        default="", title="Image", description="Container image that the command is in; used in containers only."
    )
    health_path: str = Field(
        default="",
        title="Health path",
        description="Path that answers 200 when the server is ready, as /health; empty means there is none, and the "
        "endpoint stays UNVERIFIED.",
        pattern=r"^(/[!-~]*)?$",
    )
    metrics_path: str = Field(
        default="",
        title="Metrics path",
        description="Path of Prometheus metrics with vLLM's names, as /metrics, by which the watcher tells a busy "
        "server from a stuck one; empty means there is none.",
        pattern=r"^(/[!-~]*)?$",
    )
    port: int = Field(
        default=0,
        ge=0,
        le=65535,
        title="Port of the command",
        description="TCP port that the command listens on by itself; 0 means it takes the one it is given, by {port} "
        "or the environment variable PORT.",
    )


def problems(config: ServeConfig, container: bool) -> list[str]:
    """What cannot work, told before anything starts."""
    options = config.command
    try:
        words = shlex.split(options.command_line)
    except ValueError as error:
        return [f"serve.command.command_line: {error}. Close the quotation: {options.command_line}"]
    found = []
    if not words and not (container and options.image):
        found.append(
            "serve.command.command_line: say what to run, as `transformers serve {model_path} --host {host} "
            "--port {port}`" + (", or name an image." if container else ".")
        )
    if container and not options.image:
        found.append("serve.command.image: name the image that the command is in.")
    if words and not container and "{" not in words[0]:
        found += program_problems("serve.command.command_line", words[0], "Install it, or give its path.")
    if not options.port and not PORT_IS_FREE.search(options.command_line):
        found.append("serve.command.port: set the port that the command listens on, or write {port} in its place.")
    return found


def check_folder(config: ServeConfig, folder: Path) -> None:
    """Raise ServingError if weights are torn, or pickles that are not allowed; else the folder may hold anything."""
    model_folder.check_weights(folder, allow_pickle=config.allow_pickle)


def launch(config: ServeConfig, place: Place) -> Launch:
    """The command with its places filled in; the model's name is learned from the server unless it is set."""
    options = config.command
    model = served_name(config, place)
    port = options.port or place.port
    values = {"model_path": place.model_path, "model_name": model or config.name, "host": place.host, "port": str(port)}
    words = [fill(word, **values) for word in shlex.split(options.command_line)]
    if words and not place.container:
        words[0] = local_program(words[0])
    return Launch(
        command=words or None,
        env={"PORT": str(port)} | environment(config, place, values["model_name"]),
        model=model,
        ready_path=options.health_path,
        metrics_path=options.metrics_path,
        image=options.image,
        port=port,
        identity="none",
        startup_budget_s=120,
    )
