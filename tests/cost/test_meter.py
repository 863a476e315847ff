import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.cost import ledger
from flows.cost.counter import Counter
from flows.cost.meter import Meter


def meter(folder, stage="finetune", **more):
    return Meter(ledger.new_file(folder, stage), stage, every_s=0, **more)


def test_attempts_of_all_stages_add_up(tmp_path):
    counter = Counter()
    for _ in range(2):
        with meter(tmp_path, gpus=0.5, counter=counter):
            time.sleep(0.05)
            counter.add(100, 6e3)
    with meter(tmp_path, "evaluate", counter=Counter()):
        pass
    (tmp_path / "torn.json").write_text('{"stage": "fine')
    stages = ledger.by_stage(tmp_path)
    assert list(stages) == ["finetune", "evaluate"]
    training = stages["finetune"]
    assert training.attempts == 2
    assert training.seconds >= 0.1
    assert training.gpu_hours == pytest.approx(training.seconds / 3600 / 2)
    assert (training.tokens, training.flops) == (100 + 200, 6e3 + 12e3)  # a counter counts on
    assert stages["evaluate"].tokens is None
    whole = ledger.spent(tmp_path)
    assert whole.seconds == pytest.approx(training.seconds + stages["evaluate"].seconds)
    assert whole.attempts == 3


def test_cards_that_were_not_asked_for_count_once_they_are_used(tmp_path):
    used = []
    with meter(tmp_path, cards=lambda: used):
        used.append("aaa")
        time.sleep(0.02)
    cost = ledger.spent(tmp_path)
    assert cost.gpu_hours == pytest.approx(cost.seconds / 3600)
    assert cost.energy_kwh is None  # a card without a counter


def test_failed_work_has_cost_too(tmp_path):
    def work():
        with meter(tmp_path):
            time.sleep(0.02)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert ledger.spent(tmp_path).seconds >= 0.02


def test_what_a_killed_process_has_spent_is_there(tmp_path):
    code = (
        "import time; from pathlib import Path; from flows.cost.meter import Meter;\n"
        f"with Meter(Path({str(tmp_path / 'finetune-1.json')!r}), 'finetune', every_s=0.1): time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 30
    while ledger.spent(tmp_path).seconds < 0.3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert ledger.by_stage(tmp_path)["finetune"].seconds >= 0.3


def test_energy_of_the_cpus_is_in_it_where_the_kernel_shows_it(tmp_path):
    zone = tmp_path / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0")
    (zone / "max_energy_range_uj").write_text("1000000000")
    (zone / "energy_uj").write_text("1000000")
    with meter(tmp_path / "spent", powercap=tmp_path / "powercap"):
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
        (zone / "energy_uj").write_text("8200000")
    cost = ledger.spent(tmp_path / "spent")
    assert cost.energy_of == ["CPUs"]
    assert 0 < cost.energy_kwh * 3.6e6 <= 7.2
