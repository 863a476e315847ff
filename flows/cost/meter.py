"""Measures what this process, or this thread, spends on a stage, and keeps the stage's file of it up to date."""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from flows.cost.cost import Cost
from flows.cost.counter import Counter, done_here
from flows.cost.energy import JOULES_PER_KWH, POWERCAP, CardEnergy, CpuEnergy, process_cpu_s
from flows.cost.ledger import Attempt
from flows.store.files import write_atomically

EVERY_S = 2.0


class Meter:
    """A context in which work is measured; its file is there from the beginning, whatever ends the work.

    Args:
        file: the attempt's file (`ledger.new_file`).
        stage: whose work it is.
        gpus: cards that it has been given, or a share of one; 0: as many as `cards` says are used.
        cards: the UUIDs of the cards that this process uses.
        own_cpu: seconds of CPU time of this work.
        counter: where the work counts its tokens.
        every_s: how often the file is written; 0: only in the beginning and in the end, from the caller's thread.
        powercap: where the kernel shows the CPUs' energy.
    """

    def __init__(
        self,
        file: Path,
        stage: str,
        gpus: float = 0.0,
        cards: Callable[[], list[str]] = list,
        own_cpu: Callable[[], float] = process_cpu_s,
        counter: Counter = done_here,
        every_s: float = EVERY_S,
        powercap: Path = POWERCAP,
    ) -> None:
        self._file, self._stage, self._gpus, self._used = file, stage, gpus, cards
        self._counter, self._every_s = counter, every_s
        self._started = datetime.datetime.now(datetime.UTC).isoformat()
        self._begin = time.monotonic()
        self._cpu, self._card = CpuEnergy(own_cpu, powercap), CardEnergy()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Meter:
        self._write()
        if self._every_s:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._every_s:
            self._thread.join()
        self._write()

    def cost(self) -> Cost:
        """What it is up to now; call from one thread at a time."""
        seconds = time.monotonic() - self._begin
        energy, of = self._energy()
        tokens, flops = self._counter.tokens, self._counter.flops
        return Cost(
            seconds=seconds,
            gpu_hours=seconds / 3600 * (self._gpus or len(self._used())),
            energy_kwh=None if energy is None else energy / JOULES_PER_KWH,
            energy_of=of,
            tokens=None if tokens is None else round(tokens),
            flops=flops,
        )

    def _energy(self) -> tuple[float | None, list[str]]:
        """Joules, and of what; a card that others share is not ours to measure, and without it the rest says little."""
        cpu = self._cpu.sample()
        cards = self._used()
        of_cpu = [] if cpu is None else ["CPUs"]
        if not cards:
            return cpu, of_cpu
        card = self._card.sample(cards) if self._gpus == int(self._gpus) else None
        return (None, []) if card is None else (card + (cpu or 0.0), ["cards", *of_cpu])

    def _keep(self) -> None:
        while not self._over.wait(self._every_s):
            self._write()

    def _write(self) -> None:
        attempt = Attempt(stage=self._stage, started=self._started, cost=self.cost())
        with contextlib.suppress(OSError):  # a full disk: the work says so itself
            write_atomically(self._file, attempt.model_dump_json())
