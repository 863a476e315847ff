import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.errors import ConfigError, RunEndedError
from flows.gpus import leases, names
from flows.gpus.inventory import Gpu, gpus
from flows.gpus.leases import holders, lease, problems

# Holds what it is told until it is killed; says so on a line, and what it waits for on the lines before.
HOLDER = """
import sys, time
from flows.gpus.leases import lease
with lease(float(sys.argv[1]), sys.argv[2], lambda why: print("waits", why, flush=True), poll_s=0.05) as got:
    print("has", *got.devices, flush=True)
    if sys.argv[3:]:
        import subprocess
        subprocess.Popen(["sleep", "30"], pass_fds=got.descriptors, stdout=subprocess.DEVNULL)
        print("child", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_LEASES", str(tmp_path / "leases"))
    monkeypatch.setenv("FINETUNE_GPUS", "2")
    return monkeypatch


@pytest.fixture
def hold():
    started = []

    def start(wanted, name, *more):
        command = [sys.executable, "-c", HOLDER, str(wanted), name, *more]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True))
        return started[-1]

    yield start
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
        one.wait()
        one.stdout.close()


def silent(_):
    pass


def devices(wanted, **options):
    with lease(wanted, "a test", silent, **options) as got:
        return got.devices


def test_two_holders_get_different_cards(machine):
    with lease(1, "one", silent) as one, lease(1, "two", silent) as two:
        assert (one.devices, two.devices) == ((0,), (1,))
        assert two.environment == {"CUDA_VISIBLE_DEVICES": "1"}
        assert [(place.holder, place.devices) for place in holders()] == [("one", (0,)), ("two", (1,))]
    assert holders() == []
    assert devices(2) == (0, 1)


def test_shares_fill_one_card_before_the_next():
    with lease(0.3, "a", silent) as a, lease(0.5, "b", silent) as b, lease(0.8, "c", silent) as c:
        assert (a.devices, b.devices, c.devices) == ((0,), (0,), (1,))
        with lease(0.2, "d", silent) as d:
            assert (d.devices, d.share) == ((0,), 0.2)


def test_three_tenths_and_eight_tenths_of_one_card_follow_one_another(machine, hold):
    machine.setenv("FINETUNE_GPUS", "1")
    with lease(0.3, "small", silent):
        big = hold(0.8, "big")
        assert big.stdout.readline() == "waits Waiting for 0.8 of a GPU: small holds 0.3 of GPU 0.\n"
    assert big.stdout.readline() == "has 0\n"


def test_who_waits_can_give_up_and_leaves_the_queue(machine):
    machine.setenv("FINETUNE_GPUS", "1")
    seconds = []

    def give_up(pause):
        seconds.append(pause)
        raise RunEndedError

    with lease(1, "running", silent), pytest.raises(RunEndedError), lease(1, "given up", silent, pause=give_up):
        pytest.fail("it is held")
    assert seconds == [leases.POLL_S]
    assert devices(1) == (0,), "nobody is before it"


def test_of_ten_cards_two_trainings_of_five_run_and_a_third_waits_for_the_first_to_end(machine, hold):
    machine.setenv("FINETUNE_GPUS", "10")
    first, second = hold(5, "first"), hold(5, "second")
    got = {first.stdout.readline(), second.stdout.readline()}
    assert got == {"has 0 1 2 3 4\n", "has 5 6 7 8 9\n"}
    third = hold(5, "third")
    why = third.stdout.readline()
    assert why.startswith("waits Waiting for 5 GPUs: ")
    assert "first holds GPU " in why
    assert "second holds GPU " in why
    second.kill()
    assert third.stdout.readline() in got


def test_who_waits_longest_is_first_and_a_dead_one_in_the_queue_holds_nobody_up(hold):
    with lease(1, "running", silent) as _:
        big, dead = hold(2, "big"), None
        assert big.stdout.readline().startswith("waits Waiting for 2 GPUs: running holds GPU 0.")
        dead = hold(2, "dead")
        assert "big waits for 2 GPUs before it" in dead.stdout.readline()
        small = hold(1, "small")
        why = small.stdout.readline()
        assert "big waits for 2 GPUs before it" in why
        assert "dead waits for 2 GPUs before it" in why
        dead.kill()
        dead.wait()
    assert big.stdout.readline() == "has 0 1\n"
    words = (line for line in iter(small.stdout.readline, "") if "dead" not in line and "big waits" not in line)
    assert next(words) == "waits Waiting for 1 GPU: big holds GPU 0, 1.\n"
    big.kill()
    assert small.stdout.readline() == "has 0\n"


def test_a_card_is_free_when_the_last_process_that_used_it_is_gone(hold):
    one = hold(2, "one", "with a child")
    assert [one.stdout.readline(), one.stdout.readline()] == ["has 0 1\n", "child\n"]
    one.kill()
    one.wait()
    two = hold(1, "two")
    assert two.stdout.readline().startswith("waits ")
    os.killpg(one.pid, signal.SIGKILL)
    assert two.stdout.readline() == "has 0\n"


def test_a_card_is_free_at_once_when_its_holder_is_killed(hold):
    one = hold(2, "one")
    assert one.stdout.readline() == "has 0 1\n"
    one.kill()
    one.wait()
    started = time.monotonic()
    assert devices(2, poll_s=60) == (0, 1)
    assert time.monotonic() - started < 30


def one_file(folder):
    (folder / "gpu-0").unlink()


def every_file(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize("removed", [one_file, every_file, shutil.rmtree])
def test_a_card_is_not_leased_twice_when_its_file_is_removed(machine, hold, tmp_path, removed):
    first = hold(1, "first")
    assert first.stdout.readline() == "has 0\n"
    removed(tmp_path / "leases")
    assert devices(1) == (1,)
    waiting = hold(2, "second")
    why = waiting.stdout.readline()
    assert why.startswith("waits Waiting for 2 GPUs: ")
    lost = f"GPU 0 is still used (the holder was killed, or its file in {tmp_path / 'leases'} removed)."
    assert ("first holds GPU 0." if removed is one_file else lost) in why
    first.kill()
    assert waiting.stdout.readline() == "has 0 1\n"


def test_a_share_of_a_card_is_not_leased_twice_when_its_file_is_removed(machine, tmp_path):
    machine.setenv("FINETUNE_GPUS", "1")
    with lease(0.3, "a", silent), lease(0.5, "b", silent):
        shutil.rmtree(tmp_path / "leases")
        assert leases._part(tmp_path / "leases", [0], 21) is None
        assert leases._whole(tmp_path / "leases", [0], 1) is None
        with lease(0.2, "c", silent) as c:
            assert c.devices == (0,)
    assert devices(1) == (0,)


def test_who_waits_keeps_the_place_when_the_files_are_removed(machine, hold, tmp_path):
    machine.setenv("FINETUNE_GPUS", "1")
    with lease(1, "running", silent):
        first = hold(1, "first")
        assert first.stdout.readline() == "waits Waiting for 1 GPU: running holds GPU 0.\n"
        shutil.rmtree(tmp_path / "leases")
        assert "still used" in first.stdout.readline()
        second = hold(1, "second")
        assert "first waits for 1 GPU before it" in second.stdout.readline()
    assert first.stdout.readline() == "has 0\n"
    first.kill()
    lines = iter(second.stdout.readline, "")
    assert next(line for line in lines if line.startswith("has")) == "has 0\n"


def test_nobody_has_a_card_twice_while_somebody_removes_the_folder_again_and_again(machine, tmp_path):
    machine.setenv("FINETUNE_GPUS", "1")
    inside, twice, over = threading.Lock(), [], threading.Event()

    def take(name):
        for _ in range(15):
            with lease(1, name, silent, poll_s=0.001):
                if not inside.acquire(blocking=False):
                    twice.append(name)
                    continue
                time.sleep(0.002)
                inside.release()

    def clean():
        while not over.is_set():
            shutil.rmtree(tmp_path / "leases", ignore_errors=True)

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(take, "abcd"))
    finally:
        over.set()
        cleaner.join()
    assert twice == []


def test_files_in_use_never_grow_old(machine, tmp_path):
    machine.setattr(leases, "TOUCH_S", 0.02)
    with lease(1, "long", silent):
        in_use = [tmp_path / "leases" / "gpu-0", *(tmp_path / "leases").glob("ticket-*")]
        assert len(in_use) == 2
        for path in in_use:
            os.utime(path, (1, 1))
        until = time.monotonic() + 10
        while any(path.stat().st_mtime == 1 for path in in_use):
            assert time.monotonic() < until
            time.sleep(0.01)


def test_where_the_kernel_does_not_tell_names_the_files_do(machine, tmp_path):
    machine.setattr(names, "NAMES", tmp_path / "none")
    with lease(1, "one", silent):
        assert devices(1) == (1,)


def test_the_locks_lie_where_all_may_write_and_nothing_cleans_or_else_in_the_last_place(tmp_path, machine):
    machine.delenv("FINETUNE_LEASES")
    open_to_all, of_root = tmp_path / "lock", tmp_path / "closed"
    for folder, mode in ((open_to_all, 0o1777), (of_root, 0o755)):
        folder.mkdir()
        folder.chmod(mode)
    name = "prefect-finetune-gpus"
    assert leases._default_folder([str(open_to_all), "/var/tmp"]) == open_to_all / name
    assert leases._default_folder([str(of_root), "/var/tmp"]) == leases.Path("/var/tmp", name)
    assert leases._default_folder([str(tmp_path / "none"), "/var/tmp"]) == leases.Path("/var/tmp", name)
    machine.setattr(leases, "PLACES", (str(open_to_all), "/var/tmp"))
    assert devices(1) == (0,)
    assert (open_to_all / name).stat().st_mode & 0o7777 == 0o1777


@pytest.mark.parametrize(
    ("wanted", "memory", "cards", "words"),
    [
        (3, 0, [0, 0], "gpus: 3 asked for, this machine has 2. Name a work pool whose machines have them."),
        (1, 0, [], "gpus: 1 asked for, this machine has none (nvidia-smi shows no card; "),
        (1.7, 0, [0, 0], "gpus: 1.7 is neither a share of one card (below 1) nor whole ones."),
        (0.123, 0, [0], "gpus: a card is shared in hundredths, 0.123 is finer."),
        (1, 96, [80, 80], "gpu_memory: 96 GiB asked for, the biggest card here has 80 GiB."),
        (0.5, 48, [80], "gpu_memory: 48 GiB asked for, the biggest card here has 80 GiB and 0.5 of that is asked for."),
        (2, 48, [80, 24], "gpu_memory: 48 GiB asked for on 2 cards, 1 here has that."),
    ],
)
def test_what_can_never_be_had_is_told_at_once(wanted, memory, cards, words):
    found = problems(wanted, memory, [Gpu(index, gib) for index, gib in enumerate(cards)])
    assert len(found) == 1
    assert found[0].startswith(words)


def test_only_cards_with_enough_memory_are_taken(machine):
    machine.setenv("FINETUNE_GPUS", "24,80")
    assert devices(1, memory_gib=48) == (1,)
    with pytest.raises(ConfigError, match="biggest card here has 80 GiB"):
        devices(1, memory_gib=96)


@pytest.mark.parametrize("words", ["two", "80;80", "80,x"])
def test_pretended_cards_that_are_none_are_told(machine, words):
    machine.setenv("FINETUNE_GPUS", words)
    with pytest.raises(ConfigError, match="names no GPUs"):
        gpus()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.sampled_from([1, 2, 3]), st.integers(1, 99).map(lambda n: n / 100)), max_size=8))
def test_no_part_of_a_card_is_held_twice(tmp_path_factory, wishes):
    folder = tmp_path_factory.mktemp("leases")
    held, used = [], {0: 0, 1: 0, 2: 0}
    for wish in wishes:
        got = (
            leases._whole(folder, [0, 1, 2], int(wish))
            if wish >= 1
            else leases._part(folder, [0, 1, 2], round(wish * 100))
        )
        if got is None:
            free = [card for card, parts in used.items() if parts + round(min(wish, 1) * 100) <= 100]
            assert len(free) < max(1, wish)
            continue
        held += got.descriptors
        for device in got.devices:
            used[device] += round(got.share * 100)
            assert used[device] <= 100
    for descriptor in held:
        os.close(descriptor)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_users_of_one_machine_take_turns_also_after_one_has_been_killed(machine, hold):
    with tempfile.TemporaryDirectory() as place:  # tmp_path is closed to others
        os.chmod(place, 0o755)
        machine.setenv("FINETUNE_LEASES", f"{place}/leases")
        killed = hold(1, "one of root")
        assert killed.stdout.readline() == "has 0\n"
        as_somebody(lambda: devices(1) == (1,))
        killed.kill()
        killed.wait()
        as_somebody(lambda: devices(2) == (0, 1))
        assert devices(2) == (0, 1)


def as_somebody(check):
    """In a process of the user nobody, which may remove no file of root's."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setuid(65534)
            os._exit(0 if check() else 1)
        except BaseException:
            traceback.print_exc()
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
