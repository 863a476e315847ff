"""Start an endpoint, and call it healthy only when it has answered a question."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from flows.errors import ServingError
from flows.progress import Progress
from flows.serving import probe, records
from flows.serving.causes import StartError, classify, last_lines
from flows.serving.config import ServeConfig
from flows.serving.endpoint import Endpoint
from flows.serving.registry import RUNTIMES, VARIANTS
from flows.serving.state import State
from flows.serving.stop import end, end_leftovers

POLL_S = 0.5
RUNTIME = "process"
# The first answer may take far longer than later ones (pages read in, kernels compiled).
FIRST_GENERATION_TIMEOUT_S = 120.0
GENERATION_FAILURES = 3


def start_endpoint(
    config: ServeConfig,
    model_dir: Path,
    endpoints_dir: Path,
    progress: Progress,
    *,
    run_id: str = "",
    run_url: str = "",
    model_uri: str = "",
) -> Endpoint:
    """Serve `model_dir` under `config.name` and return when it is HEALTHY.

    A healthy endpoint of that name with the same model and settings is used again. Any other is replaced only when
    the new one is healthy; until then, and if that fails, it goes on serving. Whatever interrupts the start, the
    process it started is ended. Progress counts seconds of the startup budget.

    Raises:
        ServingError: no such folder, the wanted port is taken, or the old process could not be ended.
        StartError: the server ended, answered wrongly or was not healthy within the budget; holds cause and log lines.
    """
    model_dir = model_dir.expanduser().resolve()
    if not model_dir.is_dir():
        raise ServingError(f"Cannot serve {model_dir}: there is no such folder. Give the folder of a saved model.")
    with records.starting(endpoints_dir, config.name):
        old = records.load(endpoints_dir, config.name)
        end_leftovers(config.name, endpoints_dir, serving=old)
        if old and _serves_already(old, config, model_dir):
            progress(config.startup_budget_s, config.startup_budget_s, f"{old.name} serves this model already")
            return old
        if old and not RUNTIMES[old.runtime].alive(old.process):
            end(old)  # its workers may have outlived it
            old = None
        new = _launch(config, model_dir, endpoints_dir, old)
        new = new.model_copy(update={"run_id": run_id, "run_url": run_url, "model_uri": model_uri})
        try:
            records.save(endpoints_dir, new)
            _wait_until_healthy(new, config.startup_budget_s, progress)
        except BaseException:
            end(new)
            records.delete(endpoints_dir, new.name)
            raise
        return _promote(new, old, config.name, endpoints_dir)


def _serves_already(old: Endpoint, config: ServeConfig, model_dir: Path) -> bool:
    same = (old.model, old.settings) == (str(model_dir), _settings(config, model_dir))
    return same and probe.check(old).state is State.HEALTHY


def _settings(config: ServeConfig, model_dir: Path) -> str:
    """Digest of what is asked for: with the port as wished, since the one in use may differ from it."""
    return VARIANTS[config.variant](config, model_dir, config.port).digest()


def _launch(config: ServeConfig, model_dir: Path, endpoints_dir: Path, old: Endpoint | None) -> Endpoint:
    """Start the process; its record, not yet saved."""
    runtime = RUNTIMES[RUNTIME]
    port = runtime.choose_port(0 if old and old.port == config.port else config.port)
    launch = VARIANTS[config.variant](config, model_dir, port)
    now = datetime.now(UTC)
    log = endpoints_dir.resolve() / "logs" / f"{config.name}-{now:%Y%m%dT%H%M%S-%f}.log"
    return Endpoint(
        name=config.name + records.NEXT,
        url=f"http://127.0.0.1:{port}/v1",
        state=State.STARTING,
        model=launch.model,
        variant=config.variant,
        runtime=RUNTIME,
        process=runtime.start(launch, log),
        port=port,
        ready_path=launch.ready_path,
        settings=_settings(config, model_dir),
        started=now.isoformat(timespec="seconds"),
    )


def _wait_until_healthy(endpoint: Endpoint, budget_s: float, progress: Progress) -> None:
    began = time.monotonic()
    failures = 0
    why = "not asked yet"
    while (spent := time.monotonic() - began) < budget_s:
        progress(spent, budget_s, f"{endpoint.name}: {why}")
        try:
            probe.verify(endpoint, min(budget_s - spent, FIRST_GENERATION_TIMEOUT_S))
        except probe.ProcessEndedError:
            raise _ended(endpoint, spent) from None
        except probe.GenerationError as error:
            failures += 1
            if failures == GENERATION_FAILURES:
                raise _failed(endpoint, f"cannot generate: {error}") from None
            why = str(error)
        except probe.ProbeError as error:
            why = str(error)
        else:
            progress(budget_s, budget_s, f"{endpoint.name} is healthy at {endpoint.url}")
            return
        time.sleep(POLL_S)
    raise _failed(endpoint, f"was not healthy within startup_budget_s={budget_s:g} s (a big model needs more): {why}")


def _ended(endpoint: Endpoint, spent: float) -> StartError:
    code = RUNTIMES[endpoint.runtime].exit_code(endpoint.process)
    return _failed(endpoint, f"ended after {spent:.0f} s with exit code {code}", code)


def _failed(endpoint: Endpoint, what: str, exit_code: int | None = None) -> StartError:
    lines = last_lines(Path(endpoint.log))
    cause = classify(lines, exit_code)
    return StartError(
        f"The {endpoint.variant} server of {endpoint.model} on port {endpoint.port} {what}.\n"
        f"Cause: {cause.words}. {cause.remedy}\nLog: {endpoint.log}",
        cause,
        lines,
    )


def _promote(new: Endpoint, old: Endpoint | None, name: str, endpoints_dir: Path) -> Endpoint:
    """Move the name to the new endpoint, then end the old one. Killed at any point, no process is without a record."""
    serving = new.model_copy(update={"name": name, "state": State.HEALTHY})
    if old:
        records.save(endpoints_dir, old.model_copy(update={"name": name + records.PREVIOUS}))
    records.save(endpoints_dir, serving)
    records.delete(endpoints_dir, new.name)
    end_leftovers(name, endpoints_dir, serving=serving)
    return serving
