from flows.reporting import notice as notices
from flows.reporting.contract import CostReport, GateReport
from flows.reporting.markdown import verdict_line
from flows.reporting.notice_config import NoticeConfig, addresses_wrong
from tests.reporting.conftest import make_report


def test_the_message_of_a_run_says_score_interval_gate_cost_and_where_it_is(report, tmp_path):
    (tmp_path / "truthfulness_result.png").write_bytes(b"png")
    notice = notices.of_report(report, tmp_path)
    assert (notice.event, notice.plot) == ("succeeded", tmp_path / "truthfulness_result.png")
    assert notice.subject == "Trade and supply chain, demo: the gate passed (+0.24)"
    text = notices.as_text(notice).splitlines()
    assert text[0] == ("The gate passed: reworded SemScore 0.45 → 0.69 (+0.24, 95 % interval +0.16 to +0.32, n = 57).")
    assert "SemScore, unseen: 0.46 → 0.42 (−0.04, 95 % interval −0.10 to +0.02, n = 26)" in text
    assert text[4] == "Truthfulness, reworded: 2.07 → 3.35 of 5, stand-in: similarity"
    assert text[5].startswith("Gate: The gate passed: reworded is better: the lower end of the interval, +0.16, is")
    assert text[5].endswith("threshold of +0.05; no other rung is proven worse by more than the margin of 0.02.")
    assert text[6] == "Served: trade-demo, HEALTHY, at http://127.0.0.1:8123/v1"
    assert text[7] == "Cost: 17 min 23 s, 41,870 tokens trained"
    assert text[8] == f"Report: {tmp_path / 'report.html'}"
    assert text[9] == f"Run lucid-heron: {report.run_url}"


def test_a_gate_that_did_not_pass_says_why(tmp_path):
    report = make_report(gate=GateReport(passed=False, reasons=["reworded is not proven better."]), endpoint=None)
    notice = notices.of_report(report, tmp_path)
    assert (notice.event, notice.plot) == ("gate-failed", None)
    assert notice.subject == "Trade and supply chain, demo: the gate did not pass (+0.24)"
    assert ("Gate", "The gate did not pass: reworded is not proven better.") in notice.details


def test_a_failure_is_told_by_its_first_line(report):
    message = "sources.terms[0]: there is no file 'a.json'.\nmodel.name: there is no such model.\n\nsplit: no.\n"
    notice = notices.of_failure("Trade", "1", "brave-otter", "", message, None)
    assert notice.subject == "Trade: failed"
    assert notices.as_text(notice) == (
        "sources.terms[0]: there is no file 'a.json'. (and 2 more lines)\nRun brave-otter"
    )
    assert notices.cause("x" * 5000) == "x" * 399 + "…"
    assert notices.cause("The parameters are wrong:\n - serve.name: no\n") == (
        "The parameters are wrong: - serve.name: no"
    )
    assert notices.cause(" \n") == "No reason was given."
    served = notices.of_failure("Trade", "1", "brave-otter", "", "serve: port 80 is taken", report)
    assert served.subject == "Trade: failed"
    assert served.details == [("Measured before", verdict_line(report))]


def test_texts_of_users_are_no_markup_in_a_mail():
    notice = notices.of_failure("<b>Trade</b>", "1", "otter", "javascript:alert(1)", "<script>x</script>", None)
    page = notices.as_html(notice, "")
    assert "&lt;b&gt;Trade&lt;/b&gt;: failed" in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "href" not in page
    assert "<img" not in page


def test_a_webhook_gets_figures_too(report, tmp_path):
    body = notices.as_json(notices.of_report(report, tmp_path))
    assert body["event"] == "succeeded"
    assert body["text"].startswith(body["subject"])
    assert body["gate"]["passed"] is True
    assert body["semscore"]["reworded"]["delta"]["ci95"] == [0.163, 0.318]
    assert body["cost"]["trained_tokens"] == 41_870
    assert body["run"] == {"id": report.run_id, "name": "lucid-heron", "url": report.run_url}


def test_what_is_not_known_of_the_cost_is_left_out():
    assert notices.cost_words(CostReport(seconds=4.2)) == "4.2 s"
    cost = CostReport(seconds=4.2, gpu_hours=1.5, energy_kwh=0.25, trained_tokens=1_000)
    assert notices.cost_words(cost) == "4.2 s, 1,000 tokens trained, 1.50 GPU hours, 0.250 kWh"


def test_mail_without_an_address_is_refused():
    assert addresses_wrong(NoticeConfig(email_to=["a@b.example"]), "me@b.example", "run.notify") == []
    wrong = addresses_wrong(NoticeConfig(email_to=["a@b.example, c@d.example", "x"]), None, "run.notify")
    assert [line.partition(":")[0] for line in wrong] == [
        "run.notify.email_to",
        "run.notify.email_to",
        "run.notify.email_from",
    ]
    assert addresses_wrong(NoticeConfig(email_from="a@b"), "user", "run.notify")[0].startswith(
        "run.notify.email_to: no"
    )
