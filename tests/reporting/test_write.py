import json
import os

import pytest

from flows.reporting.contract import Part, RunReport
from flows.reporting.write import write_report
from tests.reporting.conftest import make_report

FILES = ["loss.png", "report.html", "report.json", "semscore.png", "truthfulness_result.png"]


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_the_files_of_a_report(report, tmp_path):
    write_report(report, tmp_path / "runs" / report.run_id)
    assert names(tmp_path / "runs" / report.run_id) == FILES


def test_report_json_holds_every_field_of_the_contract(report, tmp_path):
    write_report(report, tmp_path)
    text = (tmp_path / "report.json").read_text("utf-8")
    assert RunReport.model_validate_json(text) == report
    assert_same_fields(json.loads(text), report)
    assert "신용장" in text


def assert_same_fields(found, part):
    assert set(found) == set(type(part).model_fields)
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Part):
            assert_same_fields(found[name], value)


def test_unknown_stays_null_in_report_json(report, tmp_path):
    report.metrics.semscore.studied = None
    write_report(report, tmp_path)
    found = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert found["cost"]["energy_kwh"] is None
    assert found["metrics"]["semscore"]["studied"] is None


def test_a_second_write_replaces_the_first(report, tmp_path):
    write_report(make_report(endpoint=None), tmp_path)
    assert "This run has no endpoint." in (tmp_path / "report.html").read_text("utf-8")
    write_report(report, tmp_path)
    assert names(tmp_path) == FILES
    assert "HEALTHY" in (tmp_path / "report.html").read_text("utf-8")
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["endpoint"]["name"] == "trade-demo"


def test_the_same_report_is_the_same_bytes(report, tmp_path):
    write_report(report, tmp_path / "a")
    write_report(report, tmp_path / "b")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_no_training_no_loss_plot(report, tmp_path):
    write_report(report, tmp_path)
    write_report(make_report(training=[]), tmp_path)
    assert names(tmp_path) == [name for name in FILES if name != "loss.png"]


def test_a_reader_keeps_the_old_file_whole_while_it_is_replaced(report, tmp_path):
    write_report(make_report(endpoint=None), tmp_path)
    with (tmp_path / "report.json").open(encoding="utf-8") as reader:
        write_report(report, tmp_path)
        assert RunReport.model_validate_json(reader.read()).endpoint is None


def test_a_write_that_fails_leaves_nothing_behind(report, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OSError, match=r"report\.html"):
        write_report(report, tmp_path)
    assert "report.json" not in os.listdir(tmp_path)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
