"""A shell command as a stage: it reads the folders of the stages before it and leaves its files in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Timer
from typing import Any

from pydantic import Field

from flows.config import Config
from flows.errors import DataError
from flows.progress import Progress
from flows.shell import guard

LAST_LINES = 20
LONGEST_LINE = 2_000  # characters of a line that are passed on
MOST_LINES = 2_000  # that are passed on, but for the last ones: each goes to the Prefect server
PROGRESS_S = 0.5
SHORTEST_LINE = 8  # characters of a line that is hidden, of a secret of several


class ShellConfig(Config):
    """A command and what it may depend on."""

    command: str = Field(
        min_length=1, title="Command", description="For bash; ends at the first line that fails (-eu, pipefail)."
    )
    data_folder: str = Field(default="", title="Data folder", description="In $DATA; empty: there is none.")
    timeout_s: float = Field(default=0, ge=0, title="Time limit (s)", description="0: none.")
    environment: list[str] = Field(
        default=[], title="Environment", description="NAME=value, as the stage's process has it; secrets by block."
    )
    secrets: list[str] = Field(default=[], title="Secrets", description="Variables whose values are kept out of logs.")


def run(config: ShellConfig, inputs: dict[str, Path], workdir: Path, progress: Progress) -> dict[str, Any]:
    """Run the command in its output folder, which becomes the stage's artifact.

    It has `$OUTPUT` (that folder, empty), `$DATA`, and for each stage before it `$INPUT_<NAME>`, that stage's folder.

    Returns:
        `lines`, how many it printed.

    Raises:
        DataError: it failed, or took longer than it may; with its last lines.
    """
    output = workdir / "output"
    output.mkdir(parents=True, exist_ok=True)
    # -I: variables of the command's own are none of the guard's Python. Of another group than we: a stage that is
    # killed with its group has no time to end what its command has started.
    shell = subprocess.Popen(
        [sys.executable, "-I", guard.__file__, config.command],
        cwd=output,
        env=os.environ | _variables(config, inputs, output),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
    )
    late = Event()

    def give_up() -> None:
        late.set()
        _end(shell)

    timer = Timer(config.timeout_s, give_up)
    timer.daemon = True
    if config.timeout_s:
        timer.start()
    try:
        last, count = _follow(_masked(shell, config.secrets), progress)
        code = shell.wait()
    finally:
        timer.cancel()
        _end(shell)
        shell.wait()
    if late.is_set():
        raise DataError(f"The command took longer than its {config.timeout_s:g} s.{_said(last)}")
    if code:
        how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
        raise DataError(f"The command {how}.{_said(last)}")
    return {"lines": count}


def _variables(config: ShellConfig, inputs: dict[str, Path], output: Path) -> dict[str, str]:
    folders = {f"INPUT_{name.upper().replace('-', '_')}": str(folder) for name, folder in inputs.items()}
    return folders | {"OUTPUT": str(output), "DATA": config.data_folder}


def _end(shell: subprocess.Popen[str]) -> None:
    """Have the guard kill the command and all that it has started."""
    if shell.stdin is not None:
        shell.stdin.close()


def _masked(shell: subprocess.Popen[str], secrets: list[str]) -> Iterator[str]:
    hidden = _hidden([os.environ.get(name, "") for name in secrets])
    begins = True
    while shell.stdout and (piece := shell.stdout.readline(10 * LONGEST_LINE)):
        ends = piece.endswith("\n")
        if begins:  # what comes after so long a piece is left out, so that no secret is in two of them
            for text in hidden:
                piece = piece.replace(text, "***")
            line = piece.rstrip("\n")
            yield line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ..."
        begins = ends


def _hidden(values: list[str]) -> list[str]:
    """What must not be seen in any line of output, the longest first: one secret may be the beginning of another.

    A secret of several lines (a key, JSON) is never in one line as a whole, so each of its lines is hidden; short ones
    not, as `{`, which would take half of what others print. Of JSON each text is hidden too, and of all what bash makes
    of a quote in it when it shows what it does (`set -x`).
    """
    found: set[str] = set()
    for value in [*values, *(text for secret in values for text in _texts(secret))]:
        lines = [line.strip() for line in value.splitlines() if line.strip()]
        found.update(lines if len(lines) == 1 else (line for line in lines if len(line) >= SHORTEST_LINE))
    found |= {text.replace("'", "'\\''") for text in found}
    return sorted(found, key=len, reverse=True)


def _texts(value: str) -> Iterator[str]:
    """The texts in a secret that is JSON, but for short ones."""
    try:
        left = [json.loads(value)]
    except ValueError:
        return
    while left:
        one = left.pop()
        if isinstance(one, dict | list):
            left += one.values() if isinstance(one, dict) else one
        elif isinstance(one, str) and len(one) >= SHORTEST_LINE:
            yield one


def _follow(lines: Iterator[str], progress: Callable[..., None]) -> tuple[list[str], int]:
    last: deque[str] = deque(maxlen=LAST_LINES)
    count, told = 0, 0.0
    for line in lines:
        count += 1
        last.append(line)
        if count <= MOST_LINES:
            print(line, flush=True)
        if time.monotonic() - told >= PROGRESS_S:
            told = time.monotonic()
            progress(0, 1, line[:200])
    if (more := count - MOST_LINES) > LAST_LINES:
        print(f"... {more - LAST_LINES:,} lines are left out here: send so many into a file in $OUTPUT.", flush=True)
    for line in list(last)[-more:] if more > 0 else []:
        print(line, flush=True)
    return list(last), count


def _said(last: list[str]) -> str:
    return f" Its last lines:\n{chr(10).join(last)}" if last else " It printed nothing."
