"""Work functions for the tests of child processes."""

import os
import signal
import time

from flows.config import Config
from flows.errors import DataError


class WorkConfig(Config):
    number: int = 0


def run(config: WorkConfig, inputs, workdir, progress):
    for step in range(config.number):
        progress(step + 1, config.number, f"step {step + 1}", loss=1.0)
        print(f"line {step + 1}")
    (workdir / "output").mkdir(parents=True, exist_ok=True)
    (workdir / "output" / "number.txt").write_text(str(config.number))
    return {"number": config.number, "inputs": sorted(inputs), "secret": os.environ.get("SECRET_FOR_CHILD", "")}


def wrong(config: WorkConfig, inputs, workdir, progress):
    raise DataError("terms.json, line 3: no description")


def bug(config: WorkConfig, inputs, workdir, progress):
    raise ZeroDivisionError("division by zero")


def full_disk(config: WorkConfig, inputs, workdir, progress):
    raise OSError(28, "No space left on device")


def killed(config: WorkConfig, inputs, workdir, progress):
    os.kill(os.getpid(), signal.SIGKILL)


def slow(config: WorkConfig, inputs, workdir, progress):
    (workdir / "pid").write_text(str(os.getpid()))
    time.sleep(120)
    return {}
