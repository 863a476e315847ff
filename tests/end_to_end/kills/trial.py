"""One trial: a run, a kill at one moment of it, what the docs say is to be done then, and whether all ended right."""

import fcntl
import json
import shutil
import time
from dataclasses import dataclass
from unittest import mock

from flows.gpus.leases import lease
from tests.end_to_end.conftest import FINAL, SMALL
from tests.end_to_end.kills.machine import QUIET_S
from tests.end_to_end.kills.watch import Watch
from tests.end_to_end.test_runs import wait_for

# Some ten seconds of training with a checkpoint in each of them. All else of the run comes from the store.
TRAINING = {"epochs": 6, "checkpoint_steps": 10, "log_steps": 10, "batch_size": 2, "accumulation": 1}
PARAMETERS = SMALL | {
    "sources": {"terms": [{"path": "sample:trade_en/terms", "limit": 60}], "domain": "kills"},
    "finetune": SMALL["finetune"] | TRAINING,
    "resources": {"finetune": {"gpus": 1}},
}
LONGEST_S = 300
LOOK_S = 0.3  # every look asks the server and goes through all processes
REPORT_S = 3.0  # from a trained model to the end of a run whose evaluation is in the store


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody disturbs: what every other must end with, and how long its parts are there, in seconds."""

    model: str
    seconds: dict[str, float]


def undisturbed(prefect):
    """Run it once, so that only training is left to do, and see how long that takes."""
    store = prefect.local.store
    began, seen = time.monotonic(), {"child": [], "flow": []}
    run_id, trained = prefect.start(**PARAMETERS), 0.0
    while (state := prefect.state(run_id))["type"] not in FINAL:
        for what, moments in seen.items():
            if prefect.targets(what):
                moments.append(time.monotonic())
        if not trained and list(store.glob("work/finetune-*/done.json")):
            trained = time.monotonic()
        time.sleep(LOOK_S)
    assert state["type"] == "COMPLETED", state
    end = trained + REPORT_S  # the evaluation is there the next time
    seconds = {"child": seen["child"][-1] - seen["child"][0]}
    seconds |= dict.fromkeys(("flow", "cancel"), end - seen["flow"][0])
    return Undisturbed(_model(prefect), seconds | dict.fromkeys(("worker", "server", "power"), end - began))


def _model(prefect):
    """The one trained model of the store, by the digest of its content."""
    [model] = prefect.local.store.glob("artifacts/model/*")
    return model.name


def forget_training(prefect):
    """As if it had never been trained; data set, base model and evaluation stay."""
    store = prefect.local.store
    for left in (*store.glob("work/finetune-*"), *store.glob("artifacts/model/*")):
        shutil.rmtree(left)
    for record in store.glob("results/finetune-*"):
        record.unlink()


@dataclass(frozen=True)
class Ending:
    """How a trial ended well."""

    resumed: int
    trainings: int
    again: bool
    seconds: float


def trial(prefect, plain, what, share):
    """Kill (or `cancel`) `what` when `share` (0 to 1) of its time in the run is over, and see the run to its end.

    Raises:
        AssertionError: something is not as it must be; says what.
    """
    forget_training(prefect)
    with Watch(prefect) as watch:
        run_id = _killed(prefect, plain, what, share, watch)
        killed = time.monotonic()
        if what == "cancel":
            assert prefect.wait(run_id, 120)["type"] == "CANCELLED"
            nothing_is_left(prefect)
            run_id = prefect.start(**PARAMETERS)
        if what in ("worker", "server", "power"):
            prefect.local.up()
        again = _see_to_its_end(prefect, run_id)
        seconds = time.monotonic() - killed
        wait_for(lambda: not prefect.local.work(), 60)
    return check(prefect, plain, run_id, watch, again, seconds)


def _killed(prefect, plain, what, share, watch):
    """Start a run and kill; if it was over before that, once more, by its own duration."""
    length = plain.seconds[what]
    for _ in range(3):
        run_id = prefect.start(**PARAMETERS)
        if what in ("child", "flow", "cancel"):
            wait_for(lambda: prefect.targets("child" if what == "child" else "flow"), 120)
        began = time.monotonic()
        while not (over := prefect.state(run_id)["type"] in FINAL) and time.monotonic() - began < share * length:
            time.sleep(LOOK_S)
        if not over and _strike(prefect, what, run_id):
            return run_id
        length = 0.8 * (time.monotonic() - began)
        prefect.wait(run_id)
        forget_training(prefect)
        watch.begin()
    raise AssertionError(f"there was no {what} to kill")


def _strike(prefect, what, run_id):
    return prefect.cancel(run_id) if what == "cancel" else prefect.kill(what)


def _see_to_its_end(prefect, run_id):
    """Wait; whether it had to be run again by hand, once."""
    by_hand, moved, last = False, time.monotonic(), None
    until = moved + LONGEST_S
    while (state := prefect.state(run_id))["type"] != "COMPLETED":
        prefect.local.up()  # a service manager never stops
        now = time.monotonic()
        ends_otherwise = state["type"] in ("FAILED", "CANCELLED") or now > until
        assert not ends_otherwise, (state, prefect.log(run_id)[-3000:])
        if state["id"] != last:
            last, moved = state["id"], now
        if state["type"] == "CRASHED" and now - moved > 3 * QUIET_S and not by_hand:
            prefect.run_again(run_id)
            by_hand = True
        time.sleep(0.3)
    return by_hand


def check(prefect, plain, run_id, watch, again, seconds):
    """Everything that must be so after the end, whatever was killed."""
    store = prefect.local.store
    assert _model(prefect) == plain.model, "other weights than those of a run that nobody disturbed"
    watch.look()
    [result] = watch.results  # made once
    resumed = result["figures"]["resumed_from_step"]
    assert resumed == watch.resumable, f"went on from step {resumed}, the newest whole checkpoint was {watch.resumable}"
    report = json.loads((prefect.folder(run_id) / "report.json").read_text())
    stages = {one["name"]: one["status"] for one in report["stages"]}
    cached = dict.fromkeys(("prepare", "base-model", "evaluate"), "cached")
    skipped = dict.fromkeys(("pretrain", "serve"), "skipped")
    assert stages == cached | skipped | {"finetune": stages["finetune"]}
    assert "report" in prefect.artifacts(run_id)
    run = prefect.ask("GET", f"/flow_runs/{run_id}")
    assert run["parameters"]["finetune"] == PARAMETERS["finetune"]
    nothing_is_left(prefect)
    assert not list(store.rglob(".damaged-*"))
    return Ending(resumed, watch.trainings, again, seconds)


def nothing_is_left(prefect):
    """No process of a run, no lock, no lease, no run that is under way."""
    wait_for(lambda: not prefect.local.work(), 60)
    for lock in prefect.local.store.glob("locks/*"):
        with lock.open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with mock.patch.dict("os.environ", prefect.local.own_environment(prefect.port)), lease(1, "a test", _held):
        pass
    under_way = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED", "CANCELLING"]}}}}
    runs = prefect.ask("POST", "/flow_runs/filter", json=under_way)
    assert [run["name"] for run in runs if run["state"]["type"] != "SCHEDULED" or run["run_count"]] == []


def _held(why):
    raise AssertionError(f"the card is still leased: {why}")
