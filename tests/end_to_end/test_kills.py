"""kill -9 of every part at random moments: the run ends right, nothing is done twice, nothing is left."""

import os
import random
import statistics
import sys
import traceback

import pytest

from tests.end_to_end.kills.machine import SOON_DEAD_AFTER_S, Killing, Machine
from tests.end_to_end.kills.trial import PARAMETERS, check, forget_training, trial, undisturbed
from tests.end_to_end.kills.watch import Watch, newest_step
from tests.end_to_end.test_runs import wait_for

KILLS = int(os.environ.get("FINETUNE_KILLS", "1"))  # of each; `make faults`: 20
SEED = int(os.environ.get("FINETUNE_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(300 + 400 * KILLS)]


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    """A Prefect of these tests' own, which may be killed."""
    local = Machine(tmp_path_factory.mktemp("killed"))
    try:
        port = local.up().port
        names = [word for name in ("domain-adaptation/demo-korean", "roll-back/local") for word in ("--name", name)]
        local.prefect(port, "--no-prompt", "deploy", *names)
        prefect = Killing(local, port)
        prefect.windows()
        yield prefect
    finally:
        for one in local.work():
            one.kill()
        local.down()


@pytest.fixture(scope="module")
def plain(prefect):
    return undisturbed(prefect)


def moments(what):
    """Shares of the whole, one at random in each of as many equal parts."""
    chance = random.Random(f"{SEED} {what}")
    return [(number + chance.random()) / KILLS for number in range(KILLS)]


def killed(prefect, plain, seen, what):
    """All trials of one target; notes what became of them and fails if one did not end right."""
    print(f"FINETUNE_KILL_SEED={SEED}")
    endings, failures = [], []
    for share in moments(what):
        try:
            endings.append(trial(prefect, plain, what, share))
            print(what, f"{share:.3f}", endings[-1], flush=True)
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            failures.append(f"at {share:.0%}: {str(error).partition(chr(10))[0] or type(error).__name__}")
            print(what, f"{share:.3f}", failures[-1], flush=True)
            recover(prefect)
    seen(words(endings, failures))
    assert not failures


def words(endings, failures):
    """What became of the trials, in one line."""
    said = [f"{len(endings)} of {len(endings) + len(failures)} ended right"]
    if resumed := [one.resumed for one in endings if one.resumed]:
        said.append(f"{len(resumed)} went on from a checkpoint (step {min(resumed)} to {max(resumed)})")
    if once_more := sum(one.trainings > 1 and not one.resumed for one in endings):
        said.append(f"{once_more} trained from the beginning, as there was none yet")
    if endings:
        said.append(f"{sum(one.again for one in endings)} took a re-run by hand")
        said.append(f"{statistics.median(one.seconds for one in endings):.0f} s from kill to end (median)")
    return f"{', '.join(said)}; seed {SEED}. {'; '.join(failures)[:400]}".strip()


def recover(prefect):
    """Leave a failed trial behind, so that the next one begins as the first did."""
    prefect.local.up()
    prefect.drop()
    for one in prefect.local.work():
        one.kill()
    wait_for(lambda: not prefect.local.work(), 60)


MOMENTS = f"{KILLS} random moments" if KILLS > 1 else "a random moment"
RIGHT = "Completed, every result made once, weights bit-equal to an undisturbed run's, no process, lock or lease left"


@pytest.mark.fault(
    "training child killed",
    on=MOMENTS,
    expected=RIGHT,
    action="nothing: the stage is tried again, and goes on from its newest whole checkpoint",
)
def test_the_training_child(prefect, plain, seen):
    killed(prefect, plain, seen, "child")


@pytest.mark.fault(
    "flow-run process killed",
    on=MOMENTS,
    expected=RIGHT,
    action="nothing: its training dies with it, and the automation starts the run again",
)
def test_the_flow_run_process(prefect, plain, seen):
    killed(prefect, plain, seen, "flow")


@pytest.mark.fault(
    "worker killed",
    on=MOMENTS,
    expected=RIGHT,
    action="start the worker again: the run has gone on without it, or is started by the new one",
)
def test_the_worker(prefect, plain, seen):
    killed(prefect, plain, seen, "worker")


@pytest.mark.fault(
    "Prefect server killed",
    on=MOMENTS,
    expected=RIGHT,
    action="start the server again at its port: the run waits for it a minute where it needs it",
)
def test_the_server(prefect, plain, seen):
    killed(prefect, plain, seen, "server")


@pytest.fixture
def soon_dead(prefect):
    """Heartbeats that stop are noticed as soon as they can be."""
    prefect.windows(SOON_DEAD_AFTER_S)
    yield
    prefect.windows()


@pytest.mark.fault(
    "all killed at once (power loss)",
    on=MOMENTS,
    expected=RIGHT,
    action="start server and worker again: the run is found dead and started again within 15 minutes, at once by "
    "`prefect flow-run retry`",
)
def test_all_at_once(prefect, plain, seen, soon_dead):
    killed(prefect, plain, seen, "power")


@pytest.mark.fault(
    "run cancelled",
    on=MOMENTS,
    expected="Cancelled, no process, lock or lease left; a new run goes on from its newest whole checkpoint",
    action="start a new run if it is wanted after all",
)
def test_cancelled(prefect, plain, seen):
    killed(prefect, plain, seen, "cancel")


@pytest.mark.skipif(KILLS == 1, reason="takes minutes; `make faults` does it")
@pytest.mark.parametrize(
    "hangs",
    [
        pytest.param(
            hangs,
            id=words,
            marks=pytest.mark.fault(
                "called dead while it works",
                on=f"{words} stopped until its run was started again, then it goes on",
                expected=RIGHT,
                action="nothing: the second start waits for the first, or the first finds that it is out",
            ),
        )
        for hangs, words in ((("flow",), "flow-run process"), (("flow", "child"), "flow-run process and training"))
    ],
)
def test_a_run_that_only_seemed_dead(prefect, plain, seen, soon_dead, hangs):
    forget_training(prefect)
    with Watch(prefect) as watch:
        run_id = prefect.start(**PARAMETERS)
        wait_for(lambda: newest_step(prefect.local.store), 120)
        hung = [one for what in hangs for one in prefect.targets(what)]
        first = {one.pid for one in hung}
        for one in hung:
            one.suspend()
        seen.begin()
        try:
            wait_for(lambda: [one for one in prefect.targets("flow") if one.pid not in first and at_work(one)], 240)
            assert prefect.ask("GET", f"/flow_runs/{run_id}")["run_count"] == 2
        finally:
            for one in hung:
                one.resume()
        prefect.wait(run_id)
        wait_for(lambda: not prefect.local.work(), 120)
    state = prefect.state(run_id)
    seen(f"{state['type']} at its second start; {len(watch.results)} result, {watch.trainings} training")
    assert state["type"] == "COMPLETED", state
    check(prefect, plain, run_id, watch, again=False, seconds=0)


def at_work(flow):
    """Whether a flow-run process has come to training: it has the lock of it, or waits for it."""
    return any("/locks/finetune-" in file.path for file in flow.open_files())
