"""Start a server, and call it healthy only when it has answered a question."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx

from flows.errors import ServingError
from flows.progress import Progress, silent
from flows.serving import probe, records, revisions
from flows.serving.causes import LOG_LINES, SEARCHED_LINES, StartError, classify, told, worth_showing
from flows.serving.config import ServeConfig
from flows.serving.endpoint import Endpoint
from flows.serving.front import following
from flows.serving.front.options import problems as front_problems
from flows.serving.log_progress import progress_note
from flows.serving.old_logs import forget_old_logs
from flows.serving.promotion_options import problems as promotion_problems
from flows.serving.registry import RUNTIMES, variant_of
from flows.serving.state import State
from flows.serving.stop import end
from flows.serving.variants.common import common_problems
from flows.serving.variants.launch import Launch, Order, Place
from flows.store.digest import value_digest

POLL_S = 0.5
# The first answer may take far longer than later ones (pages read in, kernels compiled).
FIRST_GENERATION_TIMEOUT_S = 120.0
GENERATION_FAILURES = 3
MOST_REFUSALS = 4  # of connections, half a second apart: nobody here can wait for another's server to be started
# Behind any other address each answer may be of another server, so counts of two answers must not be compared.
ONE_SERVER = ("process", "docker")

logger = logging.getLogger(__name__)


def problems(config: ServeConfig) -> list[str]:
    """What in the settings cannot work on this machine, a line each; told without a model and without starting."""
    config, runtime = with_image(config), RUNTIMES[config.runtime]
    variant = variant_of(config)
    found = common_problems(config) + promotion_problems(config.promotion, config.front.enabled)
    found += front_problems(config.front, config.runtime, config.port)
    return found + variant.problems(config, runtime.CONTAINER) + runtime.problems(config)


def restart(ended: Endpoint, endpoints_dir: Path) -> tuple[Endpoint, float] | None:
    """Start the revision of an endpoint whose server has ended, and do not wait for it.

    It gets its former port unless somebody has that now.

    Returns:
        Its record, saved, STARTING, and its startup budget in seconds; None if it was started or stopped meanwhile.

    Raises:
        NotYetError: it needs something that takes long (an image that must be pulled); that has begun, try again later.
        ServingError: its revision or its model is gone, its settings cannot work any more, or the program is missing.
    """
    with records.starting(endpoints_dir, ended.name, wait_s=0) as free:
        if not free or records.load(endpoints_dir, ended.name) != ended:
            return None
        revision = revisions.load(endpoints_dir, ended.name, ended.revision)
        config, model_dir = revision.config, Path(revision.model_dir)
        check(config, model_dir)
        end(ended)  # its workers may have outlived it
        new, launch = launch_beside(config, model_dir, endpoints_dir, silent, former_port=ended.port, patient=False)
        try:
            keeps = ("name", "revision", "run_id", "run_url", "model_uri", "front")
            new = new.model_copy(update={key: getattr(ended, key) for key in keeps})
            records.save(endpoints_dir, new)
        except BaseException:
            end(new)
            raise
        following.settle(new.name, endpoints_dir, new)
        return new, config.startup_budget_s or launch.startup_budget_s


def check(config: ServeConfig, model_dir: Path) -> None:
    """Look for what cannot work before anything is started.

    Raises:
        ServingError: there is no such folder, no whole model in it, or a setting cannot work; a line a problem.
    """
    try:
        _check(config, model_dir)
    except OSError as error:
        raise ServingError(f"Cannot read {error.filename or model_dir}: {error.strerror}.") from error


def _check(config: ServeConfig, model_dir: Path) -> None:
    here = model_dir.is_dir()
    if not here and not _elsewhere(config):
        raise ServingError(f"Cannot serve {model_dir}: there is no such folder. Give the folder of a saved model.")
    if found := problems(config):
        raise ServingError("\n".join(found))
    if here:
        variant_of(config).check_folder(config, model_dir)


def _elsewhere(config: ServeConfig) -> bool:
    """Whether the model need not be on this machine; some variants look into its folder to know what to run."""
    if config.runtime == "kubernetes":
        return config.kubernetes.volume != "host-path" and config.variant not in ("custom", "llama-cpp")
    return config.runtime == "external"


def with_image(config: ServeConfig) -> ServeConfig:
    """The settings with the runtime's image, if one is named there, in place of the variant's."""
    image = getattr(getattr(config, config.runtime, None), "image", "")
    if not image:
        return config
    options = config.options.model_copy(update={"image": image})
    return config.model_copy(update={config.section: options})


def settings_digest(config: ServeConfig, model_dir: Path) -> str:
    """Digest of what is asked for: with the port as wished, since the one in use may differ from it."""
    launch = _launch_of(config, model_dir)
    if config.runtime == "process":
        devices = config.front.replica_devices if config.front.enabled else []
        return value_digest([launch.digest(), devices]) if devices else launch.digest()
    options = getattr(config, config.runtime)
    same = type(options).model_validate_json(options.model_dump_json())  # a default of 0 and a 0.0 read from a file
    return value_digest([launch.digest(), same.model_dump()])


def startup_budget_s(config: ServeConfig, model_dir: Path) -> float:
    """Seconds that a start may take until the model has answered: of the settings, else the variant's own."""
    return config.startup_budget_s or _launch_of(config, model_dir).startup_budget_s


def _launch_of(config: ServeConfig, model_dir: Path) -> Launch:
    return variant_of(config).launch(config, RUNTIMES[config.runtime].place(model_dir, config.port, config))


def _plan(config: ServeConfig, model_dir: Path, old: Endpoint | None, former_port: int = 0) -> tuple[Launch, Place]:
    """What to run, and where, on a port that is free: `former_port` if it is, else what the settings say."""
    runtime = RUNTIMES[config.runtime]
    port = 0
    if former_port:
        with contextlib.suppress(ServingError):
            port = runtime.choose_port(former_port)
    port = port or runtime.choose_port(0 if old and old.port == config.port else config.port)
    place = runtime.place(model_dir, port, config)
    launch = variant_of(config).launch(config, place)
    taken = not place.own_network and launch.port != port
    if old and taken and launch.port == old.port:
        raise ServingError(
            f"The command listens on port {launch.port} only, on which {old.name} still serves, so it cannot be "
            "started beside it. Write {port} into the command in place of the number, or stop the endpoint first: "
            f"python -m flows.serving stop {old.name}"
        )
    if taken:
        runtime.choose_port(launch.port)
    for warning in launch.warnings:
        logger.warning(warning)
    return launch, place


def _for_replica(config: ServeConfig, replica: int) -> ServeConfig:
    """The settings for that replica, from 1: on GPUs of its own if they name them; the wished port is the first's."""
    environment = config.environment
    if config.front.enabled and config.front.replica_devices:
        environment = [*environment, f"CUDA_VISIBLE_DEVICES={config.front.replica_devices[replica - 1]}"]
    return config.model_copy(update={"environment": environment, "port": config.port if replica == 1 else 0})


def launch_beside(
    config: ServeConfig,
    model_dir: Path,
    endpoints_dir: Path,
    progress: Progress,
    *,
    current: Endpoint | None = None,
    former_port: int = 0,
    patient: bool = True,
    replica: int = 1,
) -> tuple[Endpoint, Launch]:
    """Start the server on a port of its own; its record, not yet saved, and what runs.

    Raises:
        NotYetError: it needs something first that takes long, and is not `patient`.
        ServingError: the wanted port is taken (by others than `current`), or the program or image is missing.
    """
    digest = settings_digest(config, model_dir)
    config = _for_replica(config, replica)
    launch, place = _plan(config, model_dir, current, former_port)
    order = Order(config, place, endpoints_dir.resolve(), digest, progress, patient)
    return _launch(launch, order), launch


def _launch(launch: Launch, order: Order) -> Endpoint:
    now = datetime.now(UTC)
    config, place = order.config, order.place
    forget_old_logs(order.endpoints_dir, config.name)
    log = order.endpoints_dir / "logs" / f"{config.name}-{now:%Y%m%dT%H%M%S-%f}.log"
    port = place.port if place.own_network else launch.port
    runtime = RUNTIMES[config.runtime]
    process = runtime.start(launch, log, order)
    return Endpoint(
        name=config.name + records.NEXT,
        url=runtime.url(process, port),
        state=State.STARTING,
        model=launch.model,
        model_dir="" if place.model_dir == Path() else str(place.model_dir),
        variant=config.variant,
        runtime=config.runtime,
        process=process,
        port=port,
        ready_path=launch.ready_path,
        ready_status=launch.ready_status,
        ready_timeout_s=launch.ready_timeout_s,
        identity=launch.identity,
        root=launch.root,
        probe_interval_s=launch.probe_interval_s,
        failure_threshold=launch.failure_threshold,
        metrics_path=launch.metrics_path if config.runtime in ONE_SERVER else "",
        watch=config.watch,
        settings=order.revision,
        started=now.isoformat(timespec="seconds"),
    )


def wait_until_healthy(endpoint: Endpoint, launch: Launch, budget_s: float, progress: Progress) -> Endpoint:
    """The endpoint, HEALTHY or UNVERIFIED, as soon as it is."""
    began = time.monotonic()
    failures = refusals = 0
    note, why = "", "not asked yet"
    while (spent := time.monotonic() - began) < budget_s:
        note = progress_note(_log_lines(endpoint), launch.signs)
        progress(spent, budget_s, f"{endpoint.name}: {note or why}")
        try:
            verified = probe.verify(endpoint, min(budget_s - spent, FIRST_GENERATION_TIMEOUT_S))
        except probe.ProcessEndedError:
            raise _ended(endpoint, spent) from None
        except probe.GenerationError as error:
            failures += 1
            if failures == GENERATION_FAILURES:
                raise _failed(endpoint, f"cannot generate: {error}") from None
            why = str(error)
        except probe.ProbeError as error:
            why = str(error)
            refusals = refusals + 1 if _no_way_there(endpoint, error) else 0
            if refusals == MOST_REFUSALS:
                raise _failed(
                    endpoint, f"takes no connection: {why} Check that it runs and that its address is right"
                ) from None
        else:
            progress(budget_s, budget_s, f"{endpoint.name} is {verified.state.value.lower()} at {endpoint.url}")
            return verified
        time.sleep(POLL_S)
    far = f". It was still {note}" if note else ""
    what = f"was not healthy within startup_budget_s={budget_s:g} s (a big model needs more): {why.rstrip('.')}{far}"
    raise _failed(endpoint, what)


def _no_way_there(endpoint: Endpoint, error: probe.ProbeError) -> bool:
    """Whether somebody else's server refuses connections, its host is unknown, or its certificate is not trusted."""
    # What only takes long is a TimeoutError, which is an OSError too.
    cause = error.__cause__
    return endpoint.runtime == "external" and (
        isinstance(cause, httpx.ConnectError) or (isinstance(cause, OSError) and not isinstance(cause, TimeoutError))
    )


def _ended(endpoint: Endpoint, spent: float) -> StartError:
    code = RUNTIMES[endpoint.runtime].exit_code(endpoint.process)
    how = f" with exit code {code}" if code is not None or endpoint.runtime != "kubernetes" else ""
    if code is not None and -code in signal.valid_signals():
        how += f" ({signal.Signals(-code).name})"
    return _failed(endpoint, f"ended after {spent:.0f} s{how}", code)


def _failed(endpoint: Endpoint, what: str, exit_code: int | None = None) -> StartError:
    lines = RUNTIMES[endpoint.runtime].logs(endpoint.process, SEARCHED_LINES)
    cause = classify(lines, exit_code)
    what = what.rstrip(".")
    if endpoint.runtime == "external":  # nobody here knows more of it than its answers
        return StartError(f"The {endpoint.process.words} {what}.", cause, lines)
    where = endpoint.process.words if endpoint.runtime == "kubernetes" else f"port {endpoint.port}"
    said = f"It said: {error}\n" if (error := told(lines)) else ""
    of = f" of {endpoint.model_dir}" if endpoint.model_dir else ""
    return StartError(
        f"The {endpoint.variant} server{of} on {where} {what}.\n"
        f"Cause: {cause.words}. {cause.remedy}\n{said}Log: {endpoint.log}",
        cause,
        worth_showing(lines),
    )


def _log_lines(endpoint: Endpoint) -> list[str]:
    return RUNTIMES[endpoint.runtime].logs(endpoint.process, LOG_LINES)
