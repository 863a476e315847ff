import base64
import hashlib
import html
import json
import os
import random
import shutil
import subprocess

import pytest

from flows.cost.cost import Cost
from flows.reporting.contract import CostReport, GateReport
from flows.reporting.runs import MOST, count_line, read_runs, runs_html, runs_markdown
from flows.reporting.runs_plot import runs_figure, runs_plot
from tests.reporting.conftest import make_report
from tests.reporting.test_html import Page


def with_costs(report, scale=1.0, money=False):
    """The report as a run with prices leaves it, each stage with a cost."""
    parts = {"prepare": 4.0, "pretrain": 600.0, "finetune": 1500.0, "evaluate": 400.0}
    stages = []
    for stage in report.stages:
        seconds = parts.get(stage.name, 0) * scale
        cost = Cost(seconds=seconds, energy_kwh=0.001, money=seconds / 3600) if seconds else None
        stages.append(stage.model_copy(update={"cost": cost}))
    work = sum(stage.cost.seconds for stage in stages if stage.cost)
    cost = CostReport(seconds=work + 20, work_seconds=work, gpu_hours=0.0, energy_kwh=None, attempts=4)
    if money:
        cost = cost.model_copy(update={"money": work / 3600, "currency": "EUR"})
    return report.model_copy(update={"stages": stages, "cost": cost})


@pytest.fixture
def store(tmp_path):
    """Puts runs into a store's folder `runs`; each call is later than the one before."""
    count = 0

    def put(run_id, report=None, failure=None):
        nonlocal count
        folder = tmp_path / "runs" / run_id
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("report.json", report and report.model_dump_json()), ("failure.json", failure)):
            if text:
                count += 1
                (folder / name).write_text(text)
                os.utime(folder / name, (1000 + count, 1000 + count))

    put.folder = tmp_path / "runs"
    return put


def run(name, day, **changes):
    return make_report(run_name=name, created=f"2026-11-{day:02d}T08:00:00+00:00", line="demo", **changes)


FAILURE = {
    "run_name": "sad-otter",
    "run_url": "http://127.0.0.1:4200/runs/flow-run/2",
    "line": "demo",
    "title": "Trade",
    "created": "2026-11-03T08:00:00+00:00",
    "message": "finetune: out | of <memory>.\nand more",
    "stages": [],
    "cost": {"seconds": 12.5, "work_seconds": 9.0, "gpu_hours": 0.0},
}


AGAINST = "reworded is not proven better"


def test_runs_stand_newest_first_with_score_gate_cost_and_cause(store):
    store("1", run("lucid-heron", 1))
    store("2", failure=json.dumps(FAILURE))
    store("3", run("pale-yak", 2, gate=GateReport(passed=False, reasons=["unseen is fine", AGAINST], failed=[AGAINST])))
    (store.folder / "4").mkdir()
    (store.folder / "4" / "progress.json").write_text("{}")  # it runs, or has crashed: it has not ended
    runs = read_runs(store.folder)
    assert [(one.name, one.status) for one in runs] == [
        ("sad-otter", "failed"),
        ("pale-yak", "refused"),
        ("lucid-heron", "passed"),
    ]
    assert count_line(runs) == "3 runs: 1 passed, 1 did not pass, 1 failed"
    failed, refused, passed = runs
    assert (failed.cause, failed.score, failed.seconds, failed.cost.seconds) == (
        "finetune: out | of <memory>.",
        "–",
        12.5,
        9.0,
    )
    assert refused.cause == AGAINST
    score = make_report().metrics.semscore.reworded
    assert (passed.delta, list(passed.interval)) == (score.delta.mean, list(score.delta.ci95))
    text = runs_markdown(runs, None, store.folder)
    lines = [line for line in text.splitlines() if line.startswith("| [")]
    assert [line.split("]")[0] for line in lines] == ["| [sad-otter", "| [pale-yak", "| [lucid-heron"]
    assert "did not pass: reworded is not" in lines[1]
    assert "out \\| of &lt;memory&gt;." in lines[0]
    assert "2026-11-01 08:00 UTC" in lines[2]


def test_a_run_that_failed_and_then_ended_well_is_no_failure_and_the_other_way_round(store):
    store("1", failure=json.dumps(FAILURE))
    store("1", run("lucid-heron", 4))
    store("2", run("brave-gnu", 5))
    later = {"created": "2026-11-05T08:10:00+00:00", "message": "serve: no port"}
    store("2", failure=json.dumps({**FAILURE, "run_name": "brave-gnu", **later}))
    found = {one.run_id: one for one in read_runs(store.folder)}
    assert (found["1"].status, found["2"].status) == ("passed", "failed")
    assert found["2"].cause == "serve: no port"
    assert found["2"].delta is not None  # it had been measured


def test_what_older_versions_and_broken_disks_left_is_listed_or_left_out(store):
    old = make_report().model_dump(mode="json")
    del old["line"]
    old["cost"] = {"seconds": 5.0, "gpu_hours": 0.0, "energy_kwh": None}
    for stage in old["stages"]:
        del stage["cost"], stage["saved"]
    (store.folder / "1").mkdir(parents=True)
    (store.folder / "1" / "report.json").write_text(json.dumps(old))
    store("2", failure='{"run_id": "2", "message": "the disk is full"}')
    store("3", failure='{"run_id": "3", "mess')
    found = {one.run_id: one for one in read_runs(store.folder)}
    assert set(found) == {"1", "2"}
    assert (found["1"].cost.seconds, found["1"].stages) == (5.0, {})
    assert (found["2"].name, found["2"].cause) == ("2", "the disk is full")


def test_cost_is_money_where_prices_are_else_card_hours_else_time(store):
    store("1", with_costs(run("a", 1), money=True))
    store("2", with_costs(run("b", 2)))
    costly = with_costs(run("c", 3))
    costly.cost.gpu_hours = 3.25
    store("3", costly)
    assert [one.spent for one in read_runs(store.folder)] == ["3.2 GPU-h", "41 min 44 s", "0.70 EUR"]


def test_the_page_is_well_formed_escapes_and_runs_no_script_but_its_own(store, tmp_path):
    evil = "<script>alert(1)</script>"
    store("1", run(evil, 1, title=evil, run_url="javascript:alert(1)"))
    runs = read_runs(store.folder)
    plot = runs_plot(runs, tmp_path / "runs.png")
    text = runs_html(runs, plot)
    page = Page(text)
    assert not page.open
    assert not page.badly_closed
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert html.escape(evil) in text
    assert "javascript:" not in text
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in text


def test_an_empty_store_has_a_page_too(store, tmp_path):
    assert read_runs(store.folder) == []
    assert runs_plot([], tmp_path / "runs.png") is None
    assert "No run has ended yet" in runs_html([], None)
    assert "0 runs" in runs_markdown([], None, tmp_path)


def test_a_long_list_is_cut_in_the_artifact_and_whole_on_the_page(store):
    for number in range(MOST + 5):
        store(str(number), failure=json.dumps({**FAILURE, "run_name": f"run-{number}"}))
    runs = read_runs(store.folder)
    assert runs_markdown(runs, None, store.folder).count("| [run-") == MOST
    assert runs_html(runs, None).count(">run-") == MOST + 5


def test_the_bars_are_the_stages_costs(store):
    store("1", with_costs(run("a", 1), money=True))
    figure = runs_figure(read_runs(store.folder))
    bars = [bar.get_height() for bar in figure.axes[1].patches]
    assert bars == pytest.approx([4 / 3600, 600 / 3600, 1500 / 3600, 400 / 3600])


CLICK_ON_COST = "[...document.querySelectorAll('th button')].find(button => button.textContent === 'cost').click();"


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser here")
def test_a_click_on_a_head_sorts_the_table_in_a_real_browser(store, tmp_path):
    order = random.Random(1).sample(range(1, 20), 19)
    for number, day in enumerate(order):
        store(str(number), with_costs(run(f"run-{day}", day), scale=day, money=True))
    page = runs_html(read_runs(store.folder), None)
    script = page.index("<script>")
    click = page[script:].replace("</script>", f"{CLICK_ON_COST}</script>")
    page = page[:script].replace("script-src", "script-src 'unsafe-inline' x") + click
    page = page.replace("'unsafe-inline' x 'sha256", "'unsafe-inline' 'x-sha256")
    (tmp_path / "runs.html").write_text(page, "utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{tmp_path}/runs.html"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=90).stdout
    costs = [line.split('"')[1] for line in shown.split('<td data-key="run-')[1:] for line in [f'"{line}']]
    assert [int(cost) for cost in costs] == sorted(order, reverse=True)
