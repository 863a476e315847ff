"""Words that a person typed for a server's command line, tried on that server's own parser before anything starts.

The presets are typed, so only further flags are tried, and what was tried once is remembered (~/.cache): the parsers
stand behind seconds of imports. Nothing is loaded, no GPU is touched. In a container nothing is tried.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from flows.serving.secret_names import inherited
from flows.store.digest import value_digest
from flows.store.files import read_json, write_json

TIMEOUT_S = 120
# The server's main module runs until its words are read: `argv[1]` is the module, `argv[2]` the function that comes
# next, as uvloop.run; without one, until argparse has read them.
MAIN = """
import argparse, importlib, os, runpy, sys
module, then, *words = sys.argv[1:]
sys.argv = [module, *words]
def accept(*_, **__):
    os._exit(0)
if then:
    where, _, name = then.rpartition(".")
    setattr(importlib.import_module(where), name, accept)
else:
    read = argparse.ArgumentParser.parse_args
    argparse.ArgumentParser.parse_args = lambda *a, **k: accept(read(*a, **k))
runpy.run_module(module, run_name="__main__")
"""
# `transformers serve` is read by click.
TRANSFORMERS = """
import sys
import click
from transformers.cli.transformers import app
if not hasattr(app, "commands"):
    import typer
    app = typer.main.get_command(app)
try:
    app.commands["serve"].make_context("serve", sys.argv[1:])
except click.ClickException as error:
    sys.exit(f"error: {error.format_message()}")
"""
# argparse and click, llama.cpp, and what a check after them raises.
SAID = (
    re.compile(r"^(?:\S+: )?error: (.+)$", re.MULTILINE),
    re.compile(r"^(error while .+)$", re.MULTILINE),
    re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): (?:Error: )?(.+)$", re.MULTILINE),
)


def main_refuses(where: str, main: list[str], words: list[str], environment: dict[str, str]) -> list[str]:
    """`refused` by a Python server: `main` is its interpreter, its module, and the function that comes after parsing
    (empty: argparse's own parsing is the last step).
    """
    python, module, then = main
    return refused(where, [python, "-c", MAIN, module, then, *words], environment)


def refused(where: str, command: list[str], environment: dict[str, str]) -> list[str]:
    """A line that says what the parser does not take; none if it takes all, or if nobody can tell.

    Args:
        where: the field, as `serve.vllm.extra_flags`.
        command: ends with code 0 if the words in it are right, and says on stderr what is wrong otherwise.
        environment: added to this process's, without its secrets and Prefect's settings.
    """
    path = _cache() / f"{value_digest([command, environment, _installed(command[0])])}.json"
    complaint = read_json(path)
    if not isinstance(complaint, str):
        complaint = _complaint(command, environment)
        if complaint is None:
            return []
        with suppress(OSError):
            write_json(path, complaint)
    return [f"{where}: {complaint}"] if complaint else []


def _complaint(command: list[str], environment: dict[str, str]) -> str | None:
    """What is wrong with the words, in the parser's words; empty if nothing, None if it did not say."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "DO_NOT_TRACK": "1"}
    try:
        done = subprocess.run(
            command,
            env=inherited() | offline | environment,
            cwd=tempfile.gettempdir(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode == 0:
        return ""
    said = next((found[-1] for pattern in SAID if (found := pattern.findall(done.stderr))), "")
    return f"the server does not take them: {said.rstrip('.')}." if said else None


def _installed(program: str) -> list[float]:
    """When the program, and what is installed beside it, was last changed."""
    path = Path(program)
    changed = []
    for one in (path, *path.parent.parent.glob("lib/python*/site-packages")):
        with suppress(OSError):
            changed.append(one.stat().st_mtime)
    return changed


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "prefect-finetune" / "flags"
