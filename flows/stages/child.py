"""A stage's child process: runs the work function of a request file and writes a result file.

Training needs a main thread of its own, a process that can be killed, and memory that is given back at the end.
"""

from __future__ import annotations

import ctypes
import json
import os
import pkgutil
import resource
import signal
import sys
import traceback
import typing
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from flows.cost.meter import Meter
from flows.errors import FinetuneError, OutOfDiskError, is_disk_full
from flows.progress import Progress
from flows.store.files import write_json

PR_SET_PDEATHSIG = 1


def main(request_file: Path) -> int:
    """Run the request. A file is there in the end, whatever happened but a kill."""
    request = json.loads(request_file.read_text("utf-8"))
    die_with_parent(request["parent"])
    try:
        with measuring(request.get("measured")):
            figures = call(request, progress_writer(Path(request["progress"])))
        figures["gpus"] = len(gpus_used())
        figures["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        result: dict[str, Any] = {"figures": figures}
    except FinetuneError as error:
        result = {"error": {"message": str(error), "retryable": error.retryable}}
    except Exception as error:
        result = {"error": _unexpected(error)}
    write_json(Path(request["result"]), result)
    return 0 if "figures" in result else 1


def call(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Call `function(config, inputs, workdir, progress)`, the config checked against the function's own annotation."""
    function = pkgutil.resolve_name(request["function"])
    config_type = typing.get_type_hints(function)["config"]
    inputs = {key: Path(value) for key, value in request["inputs"].items()}
    figures = function(config_type.model_validate(request["config"]), inputs, Path(request["workdir"]), progress)
    return dict(figures)


def measuring(measured: dict[str, Any] | None) -> AbstractContextManager[Any]:
    """Keeps the file of what this process spends, if the request names one."""
    if measured is None:
        return nullcontext()
    return Meter(Path(measured["file"]), measured["stage"], measured["gpus"], gpus_used)


def gpus_used() -> list[str]:
    """The UUIDs of the GPUs that this process holds; none before it has begun to use any."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return []
    devices = range(torch.cuda.device_count())
    return [str(torch.cuda.get_device_properties(device).uuid) for device in devices]


def progress_writer(path: Path) -> Progress:
    """Appends one JSON line a report: done, total, note, figures."""

    def report(done: float, total: float, note: str = "", /, **figures: float) -> None:
        line = json.dumps({"done": done, "total": total, "note": note, "figures": figures})
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    return report


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone, so that a killed run leaves no training behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("The parent process is gone.")


def _unexpected(error: Exception) -> dict[str, Any]:
    """An error that is none of ours: the traceback goes to the log, the message says what it most likely is."""
    traceback.print_exc()
    first = str(error).splitlines()[0] if str(error) else ""
    if is_disk_full(error):
        return {
            "message": str(OutOfDiskError(f"The disk is full: {first}. Free space and run again.")),
            "retryable": False,
        }
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return {
            "message": f"Out of memory: {first} Lower batch_size or max_length, or switch on activation_checkpointing.",
            "retryable": False,
        }
    return {"message": f"Unexpected {type(error).__name__}: {first} (traceback in the log above)", "retryable": True}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
