"""Run the benchmarks, print a table and write build/benchmarks.json."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.store.files import read_json, write_json
from tests.benchmarks import (
    demo_again,
    failed_start,
    finetune_stage,
    front_choice,
    front_overhead,
    healthy_latency,
    many_pipelines,
    promotion_drops,
    stage_dispatch,
    store,
    supervised_tokens,
    watch_endpoints,
)
from tests.benchmarks.rows import Row

MODULES = (
    finetune_stage,
    supervised_tokens,
    demo_again,
    watch_endpoints,
    healthy_latency,
    failed_start,
    front_overhead,
    front_choice,
    promotion_drops,
    stage_dispatch,
    many_pipelines,
    store,
)
BENCHMARKS = {module.NAME: module for module in MODULES}
RESULTS = Path("build/benchmarks.json")


def main() -> int:
    """0 when every bar holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", default="", choices=["", *BENCHMARKS], help="one of them")
    only = parser.parse_args().only
    rows: list[Row] = []
    for name, module in BENCHMARKS.items():
        if only in ("", name):
            with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as workdir:
                rows += module.measure(Path(workdir))
    _print(rows)
    names = {row.name for row in rows}
    kept = [row for row in read_json(RESULTS) or [] if row["name"] not in names]
    write_json(RESULTS, kept + [row.model_dump() for row in rows])
    return 0 if all(row.holds is not False for row in rows) else 1


def _print(rows: list[Row]) -> None:
    table = Table("name", "ours", "other", "unit", "ratio", "bar", "holds", "where")
    for row in rows:
        holds = "" if row.holds is None else "yes" if row.holds else "NO"
        table.add_row(
            row.name, f"{row.ours:.2f}", f"{row.other:.2f}", row.unit, f"{row.ratio:.2f}", row.bar, holds, row.where
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    sys.exit(main())
