"""Energy with counters as the kernel and the driver show them, since few machines have both."""

import pytest

from flows.cost import energy
from flows.cost.energy import CardEnergy, CpuEnergy


@pytest.fixture
def rapl(tmp_path):
    """Two packages, and what must not be counted with them; returns a way to set a package's counter (J)."""

    def write(zone, name, joules):
        folder = tmp_path / zone
        folder.mkdir(exist_ok=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
        (folder / "max_energy_range_uj").write_text("1000000000\n")  # 1000 J

    write("intel-rapl:0", "package-0", 100)
    write("intel-rapl:1", "package-1", 990)
    write("intel-rapl:0:0", "core", 50)
    write("intel-rapl:2", "psys", 10)
    write.folder = tmp_path
    return write


@pytest.fixture
def clock(monkeypatch):
    """CPU seconds of this work and of the whole machine, set by hand."""
    now = {"own": 0.0, "busy": 0.0}
    monkeypatch.setattr(energy, "_busy_s", lambda: now["busy"])
    return now


def test_a_process_has_its_share_of_the_packages_energy(rapl, clock):
    meter = CpuEnergy(lambda: clock["own"], rapl.folder)
    rapl("intel-rapl:0", "package-0", 140)
    rapl("intel-rapl:0:0", "core", 90)
    rapl("intel-rapl:2", "psys", 500)
    clock.update(own=3.0, busy=4.0)
    assert meter.sample() == pytest.approx(30)
    rapl("intel-rapl:1", "package-1", 6)  # went over its range: 16 J
    clock.update(own=4.0, busy=6.0)
    assert meter.sample() == pytest.approx(30 + 8)


def test_a_counter_that_may_not_be_read_or_is_not_there_is_unknown(rapl, clock, tmp_path):
    (rapl.folder / "intel-rapl:1" / "energy_uj").unlink()
    assert CpuEnergy(lambda: 0.0, rapl.folder).sample() is None
    assert CpuEnergy(lambda: 0.0, tmp_path / "nowhere").sample() is None


class Nvml:
    """Two cards as pynvml shows them; the second is too old for a counter."""

    def __init__(self):
        self.millijoules = {0: 1_000_000}

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return {"GPU-aaa": 0, "GPU-bbb": 1}[uuid]

    def nvmlDeviceGetUUID(self, card):  # noqa: N802
        return ["GPU-AAA", "GPU-BBB"][card]

    def nvmlDeviceGetTotalEnergyConsumption(self, card):  # noqa: N802
        return self.millijoules[card]


def test_cards_count_their_own_joules_and_an_old_one_is_unknown():
    nvml = Nvml()
    meter = CardEnergy(nvml)
    nvml.millijoules[0] += 5_000
    assert meter.sample(["aaa"]) == pytest.approx(5)
    assert meter.sample([]) == 0
    assert meter.sample(["aaa", "bbb"]) is None


def test_without_a_driver_every_card_is_unknown():
    assert CardEnergy().sample(["aaa"]) is None
