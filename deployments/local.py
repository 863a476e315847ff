"""A Prefect of this checkout's own: server, worker, deployments and store below `build/`, never the user's.

`python -m deployments.local up` starts what does not run, `down` ends all of it, endpoints included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
from pydantic import BaseModel

from flows.errors import FinetuneError, ServingError
from flows.serving import records
from flows.serving.endpoint import ProcessRecord
from flows.serving.runtimes import process
from flows.serving.stop import stop_endpoint
from flows.serving.variants.launch import Launch
from flows.store.files import read_json, write_json

CHECKOUT = Path(__file__).parents[1]
POOL = "local"
COMMAND = "python -m flows.engine"
ENGINES = {"flows.engine", "prefect.engine"}  # the latter in a pool without our command
KEYS = re.compile(r"^(?!PREFECT_).*_(TOKEN|KEY)$")
# What the AWS clients read beside AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and whose names look like those of
# secrets; all other AWS_ variables (profile, region, endpoint, files) are inherited by everybody.
AWS = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
PORT = 4297  # Prefect's own default is 4200
START_S = 120.0
RUN_END_S = 10.0


class LocalPrefect(BaseModel):
    """What runs: the server's port, it and its worker, and workers of further pools by the pool's name."""

    port: int
    server: ProcessRecord
    worker: ProcessRecord | None = None
    pools: dict[str, ProcessRecord] = {}


class Local:
    """The folder of a local Prefect, by default `build/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.store = self.folder / "store"
        self.record_file = self.folder / "prefect" / "local.json"

    def record(self) -> LocalPrefect | None:
        """What was started here before, dead or alive."""
        found = read_json(self.record_file)
        return LocalPrefect.model_validate(found) if found else None

    def environment(self, port: int) -> dict[str, str]:
        """Everything a process needs to talk to this Prefect and no other."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return others | self.own_environment(port)

    def own_environment(self, port: int) -> dict[str, str]:
        """The part of the environment that is ours."""
        return {
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_PROFILES_PATH": str(self.folder / "prefect" / "profiles.toml"),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_UI_URL": f"http://127.0.0.1:{port}",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # by which a lost run is told (deployments/automations.py)
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{self.folder}/prefect/prefect.db",
            "DO_NOT_TRACK": "1",
            "FINETUNE_STORE": str(self.store),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        }

    def up(self) -> LocalPrefect:
        """Start server and worker unless they run, and apply prefect.yaml.

        Raises:
            ServingError: the server did not come up; holds the end of its log.
        """
        found = self.record()
        if found is None or not process.alive(found.server):
            found = self._start_server(found)
        if found.worker is None or not process.alive(found.worker):
            found = self._start_worker(found)
        return found

    def apply(self, port: int) -> None:
        """Apply what `make deploy` does: work pools, block types, deployments, automations.

        Raises:
            FinetuneError: Prefect refused; holds what it said.
        """
        self._python(port, "deployments.apply")

    def apply_stages(self, port: int) -> None:
        """The part of `apply` that a work pool needs which was made after it.

        Raises:
            FinetuneError: Prefect refused; holds what it said.
        """
        self._python(port, "deployments.stage_deployments")

    def prefect(self, port: int, *arguments: str) -> str:
        """Run the prefect command against this server and return what it printed.

        Raises:
            FinetuneError: it failed.
        """
        return self._python(port, "prefect", *arguments)

    def _python(self, port: int, module: str, *arguments: str) -> str:
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(
            command, cwd=CHECKOUT, env=self.environment(port) | {"PWD": str(CHECKOUT)}, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise FinetuneError(f"{' '.join([module, *arguments[:3]])} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def down(self) -> tuple[list[str], list[str]]:
        """End endpoints, workers, runs and server; what was ended, and what could not be and why, a line each."""
        ended, left = self._end_endpoints()
        found = self.record()
        if found is None:
            return ended, left
        workers = ({POOL: found.worker} if found.worker else {}) | found.pools
        alive: list[str] = []

        def stop(words: str, record: ProcessRecord, port: int = 0) -> list[str]:
            try:
                return [words] if process.stop(record, port) else []
            except ServingError as error:
                alive.append(f"{words}: {error}")
                return []

        for pool, worker in workers.items():
            ended += stop(f"worker of the work pool '{pool}'", worker)
        ended += end_runs(f"http://127.0.0.1:{found.port}/api")
        ended += stop(f"Prefect server at http://127.0.0.1:{found.port}", found.server, found.port)
        if not alive:  # else the next `down` must find it
            self.record_file.unlink(missing_ok=True)
        return ended, left + alive

    def _end_endpoints(self) -> tuple[list[str], list[str]]:
        """The same of the endpoints; one that cannot be stopped keeps no other from it."""
        ended, left = [], []
        folder = self.store / "endpoints"
        for name in records.names(folder):
            before = records.readable(folder, name)
            try:
                stopped = stop_endpoint(name, folder)
            except (FinetuneError, OSError) as error:
                left.append(f"endpoint {name}: {error}")
                continue
            if stopped and stopped != before and stopped.why.startswith(("Ended process", "Ended container")):
                ended.append(f"endpoint {name} at {stopped.public_url}")
        return ended, left

    def _start_server(self, former: LocalPrefect | None) -> LocalPrefect:
        """Start it, where it was before if that is free: a worker that outlived it goes on then."""
        # A worker that somebody killed the server of asks at its port for ever: at our usual one it would take the runs
        # of this Prefect. So what lies elsewhere than usual, as in tests, does not come up there.
        usual = PORT if self.folder == default_folder().resolve() else 0
        port = free_port(former.port if former else usual)
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        server = self._start(command, port, "server.log")
        worker = former.worker if former and former.port == port else None
        pools = former.pools if worker and former else {}
        for lost in [former.worker, *former.pools.values()] if former and not worker else []:
            if lost is not None:
                process.stop(lost, 0)
        started = LocalPrefect(port=port, server=server, worker=worker, pools=pools)
        write_json(self.record_file, started.model_dump())
        deadline = time.monotonic() + START_S
        while not _healthy(port):
            if not process.alive(server) or time.monotonic() > deadline:
                log = Path(server.log).read_text("utf-8", "replace")[-2000:]
                raise ServingError(f"The Prefect server did not come up on port {port}. Its log ends with:\n{log}")
            time.sleep(0.5)
        return started

    def up_pool(self, pool: str, **environment: str) -> LocalPrefect:
        """Start a worker of a further pool of processes, with some environment of its own, unless it runs.

        Server and first worker must be up; `apply` afterwards makes the pool's deployment for stages.
        """
        found = self.record()
        assert found is not None, "up() comes first"
        if pool in found.pools and process.alive(found.pools[pool]):
            return found
        worker = self._worker(found, pool, environment)
        return self._recorded(found.model_copy(update={"pools": found.pools | {pool: worker}}))

    def _start_worker(self, found: LocalPrefect) -> LocalPrefect:
        return self._recorded(found.model_copy(update={"worker": self._worker(found, POOL, {})}))

    def _recorded(self, found: LocalPrefect) -> LocalPrefect:
        write_json(self.record_file, found.model_dump())
        return found

    def _worker(self, found: LocalPrefect, pool: str, environment: dict[str, str]) -> ProcessRecord:
        self._make_pool(found.port, pool)
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", pool]
        # The runs' own keys (HF_TOKEN, WANDB_API_KEY ...) and those of a bucket, which a served model would not get.
        keys = {name: value for name, value in os.environ.items() if KEYS.search(name) or name in AWS}
        log = "worker.log" if pool == POOL else f"worker-{pool}.log"
        return self._start(command, found.port, log, keys | environment)

    def _make_pool(self, port: int, pool: str) -> None:
        """Create a pool of processes; one that is there has the user's limit, pause and template, and is left so.

        Nothing of it has to follow the project's version: what an older template lacks, the worker has a default for.
        Its runs begin as `flows.engine`. Without a command of the pool another process would look for the project's
        folder first, which takes a second, and the engine does it anyway.
        """
        template = json.loads((CHECKOUT / "deployments" / "work-pools" / "process.json").read_text("utf-8"))
        template["variables"]["properties"]["command"]["default"] = COMMAND
        wanted = {"name": pool, "type": "process", "base_job_template": template}
        answer = httpx.post(f"http://127.0.0.1:{port}/api/work_pools/", json=wanted, timeout=30)
        if not answer.is_success and answer.status_code != httpx.codes.CONFLICT:  # it is there
            raise FinetuneError(f"The Prefect server made no work pool '{pool}': {answer.text[:300]}")

    def _start(self, command: list[str], port: int, log: str, more: dict[str, str] | None = None) -> ProcessRecord:
        launch = Launch(command=command, env=(more or {}) | self.own_environment(port), model="", ready_path="")
        return process.start(launch, self.folder / "prefect" / log)


def end_runs(api: str) -> list[str]:
    """End the flow runs of this machine that talk to this Prefect: a worker that ends leaves them; a line each."""
    runs = {one: name for one in psutil.process_iter() if (name := run_of(one, api))}
    for one in runs:
        with contextlib.suppress(psutil.Error):
            one.terminate()
    _, left = psutil.wait_procs(runs, timeout=RUN_END_S)
    for one in left:
        with contextlib.suppress(psutil.Error):
            one.kill()
    psutil.wait_procs(left, timeout=RUN_END_S)
    return [f"run {name}" for name in runs.values()]


def run_of(one: psutil.Process, api: str) -> str:
    """The id of the flow run that a process runs for that Prefect; empty if it runs none."""
    with contextlib.suppress(psutil.Error):
        if ENGINES & set(one.cmdline()):
            environment = one.environ()
            if environment.get("PREFECT_API_URL") == api:
                return environment.get("PREFECT__FLOW_RUN_ID", "unknown")
    return ""


def default_folder() -> Path:
    """`build/` of the checkout, or what FINETUNE_LOCAL names."""
    return Path(os.environ.get("FINETUNE_LOCAL", CHECKOUT / "build"))


def free_port(wanted: int = PORT) -> int:
    """The wanted port, or another one when somebody has it."""
    try:
        return process.choose_port(wanted)
    except ServingError:
        return process.choose_port(0)


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=2).is_success
    except httpx.HTTPError:
        return False


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m deployments.local", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "env"])
    parser.add_argument("--folder", type=Path, default=default_folder(), help="where everything of it lives")
    options = parser.parse_args(arguments)
    local = Local(options.folder)
    if options.command == "down":
        ended, left = local.down()
        print("\n".join(f"Ended: {line}" for line in ended) or "Nothing was ended.")
        for line in left:
            print(f"Not ended: {line}", file=sys.stderr)
        return int(bool(left))
    if options.command == "env":
        found = local.record()
        values = local.own_environment(found.port if found else PORT)
        print("\n".join(f"export {name}={json.dumps(value)}" for name, value in values.items() if name != "PATH"))
        return 0
    found = local.up()
    local.apply(found.port)
    print(f"Prefect UI: http://127.0.0.1:{found.port}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FinetuneError as error:
        sys.exit(str(error))
