"""Energy from the counters of the hardware: NVML of the cards, RAPL of the CPUs. Without a counter it is unknown.

RAPL (`/sys/class/powercap`) counts all that a CPU does; what a process has of it is its share of the machine's busy
CPU time. Most systems let only root read it, and virtual machines seldom have it. Codecarbon was looked at: where there
is no counter it multiplies a table's watts with the load, which is a guess.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

POWERCAP = Path("/sys/class/powercap")
JOULES_PER_KWH = 3.6e6


class CpuEnergy:
    """Joules of the machine's CPU packages that fall to this work, since it was made. `sample` often: counters wrap.

    Args:
        own_cpu: seconds of CPU time of this work so far.
        folder: where the kernel shows the counters.
    """

    def __init__(self, own_cpu: Callable[[], float], folder: Path = POWERCAP) -> None:
        self._own_cpu = own_cpu
        # intel-rapl:0 is a package (of AMD's too); intel-rapl:0:1 is a part of it; the mmio ones are the same again.
        zones = sorted(zone for zone in _children(folder) if re.fullmatch(r"intel-rapl:\d+", zone.name))
        self._zones = [zone for zone in zones if _read(zone / "name").startswith("package")]
        self._last = self._counters()
        self._own, self._busy = own_cpu(), _busy_s()
        self._joules = 0.0

    @property
    def known(self) -> bool:
        """Whether every package has a counter that may be read."""
        return bool(self._zones) and None not in self._last

    def sample(self) -> float | None:
        """Joules up to now; None where there is no counter."""
        if not self.known:
            return None
        now = self._counters()
        if None in now:
            self._last = now
            return None
        own, busy = self._own_cpu(), _busy_s()
        share = min(1.0, max(0.0, own - self._own) / (busy - self._busy)) if busy > self._busy else 0.0
        used = sum(self._difference(*pair) for pair in zip(self._zones, self._last, now, strict=True))
        self._joules += share * used
        self._last, self._own, self._busy = now, own, busy
        return self._joules

    def _counters(self) -> list[int | None]:
        return [_number(zone / "energy_uj") for zone in self._zones]

    def _difference(self, zone: Path, before: int | None, now: int | None) -> float:
        assert before is not None
        assert now is not None
        wrapped = (_number(zone / "max_energy_range_uj") or 0) if now < before else 0
        return (now - before + wrapped) / 1e6


class CardEnergy:
    """Joules of this machine's NVIDIA cards since it was made; `nvml` is the module pynvml or its like."""

    def __init__(self, nvml: Any = None) -> None:
        self._nvml = nvml
        self._begin: dict[str, int] = {}
        with contextlib.suppress(Exception):  # no driver, no card, or one that is older than the counter
            if self._nvml is None:
                import pynvml

                self._nvml = pynvml
            self._nvml.nvmlInit()
            for index in range(self._nvml.nvmlDeviceGetCount()):
                card = self._nvml.nvmlDeviceGetHandleByIndex(index)
                with contextlib.suppress(Exception):
                    self._begin[_plain(self._nvml.nvmlDeviceGetUUID(card))] = self._millijoules(card)

    def sample(self, uuids: Iterable[str]) -> float | None:
        """Joules of these cards up to now; None if one of them has no counter."""
        joules = 0.0
        for uuid in map(_plain, uuids):
            if uuid not in self._begin:
                return None
            try:
                card = self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
                joules += (self._millijoules(card) - self._begin[uuid]) / 1000
            except Exception:  # of NVML: the card is gone
                return None
        return joules

    def _millijoules(self, card: Any) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(card))


def measurable(folder: Path = POWERCAP) -> bool:
    """Whether this machine measures any energy: of its CPUs, or of a card."""
    return CpuEnergy(lambda: 0.0, folder).known or bool(CardEnergy()._begin)


def process_cpu_s() -> float:
    """Seconds of CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _busy_s() -> float:
    """Seconds in which the machine's cores have worked, all added up."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Linux has the guests' time in that of users, too.
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - guests)


def _plain(uuid: Any) -> str:
    text = uuid.decode() if isinstance(uuid, bytes) else str(uuid)
    return text.removeprefix("GPU-").lower()


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdigit() else None
