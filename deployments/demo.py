"""`make demo`: a local Prefect, the deployment `domain-adaptation/demo` run on it, and one question to the result.

`make demo-pools` is the same with `domain-adaptation/demo-pools`: a CPU pool prepares, a pool whose worker pretends two
GPUs trains two variants side by side.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from deployments.demo_progress import shown
from deployments.local import Local, default_folder
from flows.errors import FinetuneError
from flows.reporting.contract import RunReport
from flows.serving import records
from flows.serving.ask import ask, curl_line
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.stages.report import report_of
from flows.store.files import read_json
from flows.store.layout import Store

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
POOLS = {"cpu": {}, "gpu": {"FINETUNE_GPUS": "2"}}


def main() -> int:
    """Run it; 0 when the run completed and, with a passed gate, its endpoint answered."""
    console = Console(highlight=False)
    local = Local(default_folder())
    console.print("Starting a local Prefect server and worker …")
    found = local.up()
    deployment = "domain-adaptation/demo"
    if "--pools" in sys.argv[1:]:
        deployment = "domain-adaptation/demo-pools"
        for pool, environment in POOLS.items():
            local.up_pool(pool, **environment, FINETUNE_LEASES=str(local.folder / "leases"))
    local.apply(found.port)
    api = f"http://127.0.0.1:{found.port}/api"
    name = f"demo-{datetime.now():%H%M%S}"
    local.prefect(found.port, "deployment", "run", deployment, "--flow-run-name", name)
    run = _find(api, name)
    url = f"http://127.0.0.1:{found.port}/runs/flow-run/{run['id']}"
    console.print(f"[bold]Run {name}[/]  {url}", soft_wrap=True)
    started = time.monotonic()
    run = _watch(api, run["id"], local, console)
    words = f"{run['state']['name']} after {time.monotonic() - started:.0f} s: {run['state']['message'] or ''}"
    console.print(escape(words), soft_wrap=True)
    report = report_of(local.store / "runs" / run["id"])
    if run["state"]["type"] != "COMPLETED" or report is None:
        console.print(f"The run did not complete; its log is at {url}")
        return 1
    _stages(report, console)
    code = _ask(report, local, console)
    console.print(f"\n[bold]Run in the Prefect UI[/]  {url}", soft_wrap=True)
    console.print(f"[bold]Report[/]                {local.store / 'runs' / run['id'] / 'report.html'}", soft_wrap=True)
    console.print("Server, worker and endpoint stay up; `make stop` ends them.")
    return code


def _find(api: str, name: str) -> dict[str, Any]:
    body = {"flow_runs": {"name": {"any_": [name]}}, "limit": 1}
    return dict(_patient("POST", f"{api}/flow_runs/filter", body)[0])


@retry(retry=retry_if_exception_type(httpx.HTTPError), wait=wait_fixed(1), stop=stop_after_delay(120), reraise=True)
def _patient(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    """One request; again while the server is too busy to answer."""
    return httpx.request(method, url, json=body, timeout=30).raise_for_status().json()


def _watch(api: str, run_id: str, local: Local, console: Console) -> dict[str, Any]:
    """Show the run's progress until it ends."""
    file = Store(str(local.store)).run(run_id) / "progress.json"
    with shown(console) as show:
        while True:
            run: dict[str, Any] = _patient("GET", f"{api}/flow_runs/{run_id}")
            if run["state"]["type"] in FINAL:
                return run
            found = local.record()
            if found is None or found.worker is None or not process.alive(found.worker):
                raise FinetuneError("The worker has ended, so the run cannot go on. Start it again with make demo.")
            seen = read_json(file)
            if seen and "stage" in seen:
                show(seen)
            time.sleep(1)


def _stages(report: RunReport, console: Console) -> None:
    width = max(len(stage.name) for stage in report.stages) + 1
    for stage in report.stages:
        source = f" from run {stage.from_run}" if stage.from_run else ""
        console.print(
            f"  {stage.name:<{width}}{stage.status:<8}{stage.seconds:6.1f} s{source}  {stage.why}", soft_wrap=True
        )


class Question(BaseModel):
    """One held-out question as it was asked, with what was right and what the base model said."""

    asked: str
    target: str
    base_reply: str


def best_question(run_folder: Path) -> Question:
    """Of the questions about trained facts in other words, the one whose answer improved most."""
    table = pd.read_parquet(run_folder / "predictions.parquet")
    reworded = table[table["rung"] == "reworded"]
    rows = reworded if len(reworded) else table
    row = rows.iloc[int((rows["trained_semscore"] - rows["base_semscore"]).to_numpy().argmax())]
    asked = "\n".join(part for part in (row["instruction"], row["question"]) if part)
    return Question(asked=asked, target=row["target"], base_reply=row["base_reply"])


def _ask(report: RunReport, local: Local, console: Console) -> int:
    if report.endpoint is None:
        console.print("The gate did not pass, so nothing is served:")
        for reason in report.gate.reasons:
            console.print(f"  - {reason}", soft_wrap=True)
        return 0
    endpoint = records.load(local.store / "endpoints", report.endpoint.name)
    if endpoint is None or endpoint.state is not State.HEALTHY:
        console.print(f"The endpoint {report.endpoint.name} is not there any more.")
        return 1
    question = best_question(local.store / "runs" / report.run_id)
    answer = ask(endpoint, question.asked)
    console.print("\nThe question of the test whose answer improved most:")
    for name, text in (
        ("Question", question.asked.splitlines()[-1]),
        ("Right", question.target),
        ("Base", question.base_reply),
        ("Trained", f"{answer}   (asked just now at {endpoint.url})"),
    ):
        console.print(f"  [bold]{name:<9}[/] {escape(' '.join(text.split()))}", soft_wrap=True)
    console.print("\nAsk it yourself:")
    console.print(escape(curl_line(endpoint, question.asked)), soft_wrap=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FinetuneError as error:
        sys.exit(str(error))
