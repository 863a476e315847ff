"""Pre-start actions of a model definition, as lines of a POSIX shell script: so they run where the server runs.

    - {action: write_file, args: {filename: /tmp/a, body: [line, line], mode: "644", append: false}}
    - {action: write_tempfile, args: {body: [line, line], mode: "644"}}
    - {action: run_command, args: {command: [program, argument], echo: false}}
    - {action: mkdir, args: {path: /tmp/folder}}
    - {action: log, args: {message: text, debug: false}}

Placeholders as {model_path} are filled in everywhere. An action that fails ends the start and is named in the log.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.errors import ServingError
from flows.serving.definition import Action

Fill = Callable[[str], str]


class _Args(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _WriteTempfile(_Args):
    body: str | list[str]
    mode: str = Field(default="644", pattern=r"^[0-7]{3,4}$")

    def write(self, target: str, fill: Fill, into: str = ">") -> str:
        lines = [self.body.removesuffix("\n")] if isinstance(self.body, str) else self.body
        words = " ".join(shlex.quote(fill(line)) for line in lines)
        text = f"printf '%s\\n' {words}" if lines else ":"
        return f"{text} {into} {target} && chmod {self.mode} {target}"

    def shell(self, fill: Fill) -> str:
        return f'file=$(mktemp) && {self.write(chr(34) + "$file" + chr(34), fill)} && echo "wrote $file"'


class _WriteFile(_WriteTempfile):
    filename: str = Field(min_length=1)
    append: bool = False

    def shell(self, fill: Fill) -> str:
        return self.write(shlex.quote(fill(self.filename)), fill, ">>" if self.append else ">")


class _RunCommand(_Args):
    command: list[str | int | float] = Field(min_length=1)
    echo: bool = False

    def shell(self, fill: Fill) -> str:
        # Shown in the log whether or not `echo` is set: it is where one looks when it fails.
        return shlex.join(fill(str(word)) for word in self.command)


class _Mkdir(_Args):
    path: str = Field(min_length=1)

    def shell(self, fill: Fill) -> str:
        return f"mkdir -p -- {shlex.quote(fill(self.path))}"


class _Log(_Args):
    message: str
    debug: bool = False

    def shell(self, fill: Fill) -> str:
        return f"printf '%s\\n' {shlex.quote(fill(self.message))}"


ACTIONS: dict[str, type[_WriteFile | _WriteTempfile | _RunCommand | _Mkdir | _Log]] = {
    "write_file": _WriteFile,
    "write_tempfile": _WriteTempfile,
    "run_command": _RunCommand,
    "mkdir": _Mkdir,
    "log": _Log,
}


def check_actions(where: str, actions: list[Action]) -> None:
    """Look at all arguments, which the definition's format leaves open.

    Raises:
        ServingError: an argument is missing, unknown or wrong; a line each.
    """
    found = []
    for index, action in enumerate(actions):
        try:
            ACTIONS[action.action].model_validate(action.args)
        except ValidationError as error:
            for problem in error.errors():
                field = f"pre_start_actions[{index}] ({action.action}) args.{problem['loc'][0]}"
                found.append(f"{where}: {field}: {problem['msg'].lower()}.")
    if found:
        raise ServingError("\n".join(found))


def shell_lines(actions: list[Action], fill: Fill) -> list[str]:
    """A line of shell an action."""
    lines = []
    for index, action in enumerate(actions):
        shell = ACTIONS[action.action].model_validate(action.args).shell(fill)
        failed = f"pre_start action {index + 1} ({action.action}) failed"
        lines.append(f"{{ {shell}; }} || {{ echo {shlex.quote(failed)} >&2; exit 1; }}")
    return lines
