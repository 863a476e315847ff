"""`model-definition.yaml`: what a model folder says about how it is served, in Backend.AI's format (26.8).

    models:
      - name: trade-terms
        model_path: /models
        service:
          pre_start_actions:
            - action: write_file
              args: {filename: /tmp/settings.json, body: ["first line", "second line"]}
          start_command: transformers serve {model_path} --port {port}
          port: 8080
          health_check: {enable: true, path: /health}

The file says what to run, so it is trusted as a program is. Reading it is safe: plain data only, no aliases (which can
grow without bound), bounded size and depth; what is wrong is told with its line and field.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.errors import ServingError
from flows.serving.model_folder import check_regular

NAME = "model-definition.yaml"
MAX_BYTES = 65536
MAX_DEPTH = 20


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Action(_Part):
    """Something done before the server starts; a body is a text or a list of its lines."""

    action: Literal["write_file", "write_tempfile", "run_command", "mkdir", "log"]
    args: dict[str, Any]


class HealthCheck(_Part):
    """How readiness is asked for. Probing starts at once; `initial_delay` is the budget (s) until the first success.

    Left out, that budget is what Backend.AI's variant `custom` starts from; so is the service's port. `interval` is
    taken and changes nothing: the watcher looks at all endpoints at once.
    """

    enable: bool = False
    interval: float = Field(default=10.0, gt=0, le=3600)
    path: str = Field(default="/health", pattern=r"^/[!-~]*$")
    max_retries: int = Field(default=10, ge=1, le=1000)
    max_wait_time: float = Field(default=15.0, gt=0, le=600)
    expected_status_code: int = Field(default=200, ge=100, le=599)
    initial_delay: float = Field(default=1800.0, gt=0, le=86400)


class Service(_Part):
    """What is run; a text goes through `shell -c`, a list is run as it is."""

    pre_start_actions: list[Action] = []
    start_command: str | list[str] = ""
    shell: str | None = "/bin/bash"
    port: int = Field(default=8080, gt=1, le=65535)
    health_check: HealthCheck | None = None


class Metadata(_Part):
    """About the model, for people."""

    author: str | None = None
    title: str | None = None
    version: str | int | float | None = None
    created: Any = None
    last_modified: Any = None
    description: str | None = None
    task: str | None = None
    category: str | None = None
    architecture: str | None = None
    framework: list[str] | None = None
    label: list[str] | None = None
    license: str | None = None
    min_resource: dict[str, Any] | None = None


class Model(_Part):
    """One model of a definition."""

    name: str = Field(min_length=1, max_length=256)
    model_path: str = Field(min_length=1)
    service: Service
    metadata: Metadata | None = None


class Definition(_Part):
    """The whole file. One endpoint serves one model."""

    models: list[Model] = Field(min_length=1, max_length=1)


def read_definition(path: Path) -> Model:
    """The one model of a definition file.

    Raises:
        ServingError: there is no such file, or it is not of this format; names file, line and field.
    """
    try:
        check_regular(path)
        with path.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ServingError(
            f"Cannot read {path}: {error.strerror}. The variant custom needs it in the model folder; it says what to "
            "run, as:\nmodels:\n  - name: my-model\n    model_path: /models\n    service:\n"
            "      start_command: transformers serve {model_path} --port {port}\n      port: 8080"
        ) from error
    if len(text) > MAX_BYTES:
        raise ServingError(f"{path} is larger than {MAX_BYTES} bytes, which no model definition is.")
    try:
        loader = _PlainLoader(text.decode("utf-8"))
        node = loader.get_single_node()
        held = loader.construct_document(node) if node else None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ServingError(f"{path}{_where(error)}") from error
    try:
        return Definition.model_validate(held).models[0]
    except ValidationError as error:
        raise ServingError("\n".join(_words(path, node, problem) for problem in error.errors())) from error


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader without what plain settings do not need: aliases, deep nesting, a key given twice."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases (& and *) are not allowed; write the value out",
                                       problem_mark=event.start_mark)  # fmt: skip
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="it is nested too deeply", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
            if key_node.value in keys:
                raise yaml.MarkedYAMLError(problem=f"the key '{key_node.value}' is given twice",
                                           problem_mark=key_node.start_mark)  # fmt: skip
            keys.add(key_node.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError) as error:
            # A date, number or `!!bool` that is none.
            problem = (
                str(error) if isinstance(error, ValueError) else f"'{node.value}' is no {node.tag.rpartition(':')[2]}"
            )
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error


def _where(error: Exception) -> str:
    """Line and trouble of a YAML error, in words."""
    if isinstance(error, UnicodeDecodeError):
        return " is not UTF-8 text."
    if isinstance(error, yaml.reader.ReaderError):
        return f": character {error.position + 1} (U+{error.character:04X}) is none that a text may hold."
    problem = str(getattr(error, "problem", None) or error)
    mark = getattr(error, "problem_mark", None)
    if "'\\t'" in problem:
        problem = "a tab stands where YAML wants spaces; indent with spaces"
    return f", line {mark.line + 1}: {problem}." if mark else f": {problem}."


def _words(path: Path, node: Any, problem: Any) -> str:
    """One validation problem with its line; a union's branches are no fields, so they are left out of the name."""
    line, field = 1, ""
    for part in problem["loc"]:
        children = {}
        if isinstance(node, yaml.MappingNode):
            children = {key.value: (key, value) for key, value in node.value}
        elif isinstance(node, yaml.SequenceNode):
            children = {number: (value, value) for number, value in enumerate(node.value)}
        if part in children:
            key, node = children[part]
            line = key.start_mark.line + 1
        elif field and problem["type"] not in ("missing", "extra_forbidden"):
            continue
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else str(part)
    message = {"missing": "is missing", "extra_forbidden": "is no key of a model definition"}.get(problem["type"])
    if field == "models" and problem["type"] == "too_long":
        message = "has more than one model; an endpoint serves one, so give each a folder of its own"
    if not field:
        return f"{path}, line {line}: this is no model definition: that begins with `models:`."
    return f"{path}, line {line}: {field} {message or problem['msg'].lower()}."
