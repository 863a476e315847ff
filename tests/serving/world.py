"""One endpoint on a server that can be told to fail, and passes of the watcher at times of our choice."""

import json
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from flows.progress import silent
from flows.serving import history, records
from flows.serving.config import ServeConfig
from flows.serving.promotion import start_endpoint
from flows.serving.runtimes import process
from flows.serving.watch import watch
from tests.serving import fake_server

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class World:
    """One endpoint on a server that can be told to fail, and passes of the watcher at times of our choice."""

    def __init__(self, folder: Path, metrics=""):
        self.folder = folder / "endpoints"
        self.file = folder / "flags.json"
        self.model = folder / "model"
        self.model.mkdir()
        self.now = NOON
        self.config = ServeConfig(
            name="fake",
            variant="command",
            startup_budget_s=30,
            command={
                "command_line": f"{sys.executable} -S {fake_server.__file__} {{port}} {self.file}",
                "health_path": "/health",
                "metrics_path": metrics,
            },
        )

    def start(self, **changes):
        return start_endpoint(self.config.model_copy(update=changes), self.model, self.folder, silent)

    def seen(self):
        """What the server has counted."""
        endpoint = records.load(self.folder, "fake")
        return httpx.get(f"{endpoint.url}/seen", trust_env=False).json()

    def ask(self, timeout_s=10):
        """A question of somebody else's."""
        endpoint = records.load(self.folder, "fake")
        body = {"model": "fake", "messages": [{"role": "user", "content": "What is a bill of lading?"}]}
        httpx.post(f"{endpoint.url}/chat/completions", json=body, timeout=timeout_s, trust_env=False)

    def flags(self, **flags):
        self.file.write_text(json.dumps({"": flags}))

    def watch(self, seconds=60):
        """A pass `seconds` after the last one; what changed, in words."""
        self.now += timedelta(seconds=seconds)
        return [change.what for change in watch(self.folder, self.now)]

    @property
    def history(self):
        return history.load(self.folder, "fake")

    @property
    def state(self):
        return self.history.state

    def kill(self):
        endpoint = records.load(self.folder, "fake")
        os.kill(endpoint.process.pid, signal.SIGKILL)
        # The threads of a killed process end a moment after it: until then its port is open.
        while process.alive(endpoint.process) or process.port_served(endpoint.port):
            time.sleep(0.01)

    def wait_for_server(self):
        """Until the server that the watcher started listens, or has ended."""
        endpoint = records.load(self.folder, "fake")
        deadline = time.monotonic() + 20
        while process.alive(endpoint.process) and not process.port_served(endpoint.port):
            assert time.monotonic() < deadline
            time.sleep(0.02)
