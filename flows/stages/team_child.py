"""A member of a team: one of several processes that do a stage's work together. The first of them has the result."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from flows.progress import silent
from flows.stages.child import die_with_parent, outcome, progress_writer
from flows.store.files import read_json, write_json
from flows.training import team

LEADER = "FINETUNE_TEAM_LEADER"


def main(request_file: Path) -> int:
    """Run the member's part, on the machine of its leader."""
    die_with_parent(int(os.environ[LEADER]))
    return 0 if member(json.loads(request_file.read_text("utf-8"))) else 1


def member(request: dict[str, Any]) -> bool:
    """Do this process's part of the request; whether that went well. Errors go to a file of its own."""
    progress = progress_writer(Path(request["progress"])) if team.leads() else silent
    found = outcome(request if team.leads() else request | {"measured": None}, progress)
    result = Path(request["result"])
    if "error" in found:
        write_json(_error_file(result, os.environ["RANK"]), found["error"])
    elif team.leads():
        write_json(result, found)
    return "error" not in found


def tell_result(result: Path, done: bool, killed: bool = False) -> int:
    """What a leader ends with: the exit code; if the team failed, the first error is in the result file.

    Of a member that was `killed` the others only say that it is gone: then nothing is told, as for a killed child.
    """
    error = None if done else first_error(result)
    if error is not None and not (killed and error["retryable"]):
        write_json(result, {"error": error})
    return 0 if done else 1


def first_error(result: Path) -> dict[str, Any] | None:
    """Of the members' errors the one that most likely began it; None if none told one (it was killed).

    One that a retry cannot mend comes first: of the others some only say that a member has gone.
    """
    files = sorted(result.parent.glob(f"{_error_file(result, '*').name}"), key=lambda file: file.stat().st_mtime)
    errors = [error for file in files if isinstance(error := read_json(file), dict)]
    return min(errors, key=lambda error: bool(error["retryable"]), default=None)


def clear_errors(result: Path) -> None:
    """Remove what members of a former attempt have told."""
    for file in result.parent.glob(_error_file(result, "*").name):
        file.unlink(missing_ok=True)


def _error_file(result: Path, rank: str) -> Path:
    return result.with_name(f"{result.name}-error-{rank}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
