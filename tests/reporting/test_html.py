import base64
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flows.evaluation.results import Metrics, SemScore, Truthfulness
from flows.reporting.contract import CheckReport, CostReport, GateReport, RunReport
from flows.reporting.html import flat, report_html
from tests.reporting.conftest import RUN_URL, make_report

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsUe2bQAAAABJRU5ErkJggg==")


class Page(HTMLParser):
    """Elements with their attributes, and whether every element that was opened is closed in order."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.badly_closed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.badly_closed.append(tag)


def rendered(report: RunReport, tmp_path: Path) -> str:
    png = tmp_path / "plot.png"
    png.write_bytes(PNG)
    return report_html(report, png, png, png if report.training else None)


def words_of(page: str) -> str:
    """What a reader sees: no tags, one space between words."""
    body = page[page.index("<body>") :]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def section(page: str, title: str) -> str:
    return words_of("<body>" + page[page.index(f"<h2>{title}") :].split("</section>")[0])


def test_the_five_examples_are_there_escaped(report, tmp_path):
    page = rendered(report, tmp_path)
    for example in report.examples:
        for text in (example.question, example.target, example.base_reply, example.trained_reply):
            assert str(html.escape(text)).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert "0.41" in section(page, "Before and after")
    assert "−0.03" in section(page, "Before and after")


def test_examples_come_before_the_plots_and_the_verdict_before_both(report, tmp_path):
    page = rendered(report, tmp_path)
    places = [page.index(text) for text in ("The gate passed</p>", "<h2>Before and after", "<img", "<table")]
    assert places == sorted(places)
    titles = [re.sub("<.*", "", title).strip() for title in re.findall("<h2>(.*?)</h2>", page)]
    assert titles == [
        "Before and after",
        "SemScore",
        "Truthfulness",
        "Stages",
        "Data",
        "Training",
        "Endpoint",
        "Cost",
        "Versions",
        "How to read this",
    ]


def test_the_page_is_well_formed_and_loads_nothing(report, tmp_path):
    page = Page(rendered(report, tmp_path))
    assert page.badly_closed == []
    assert page.open == []
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.elements:
        assert not {"srcset", "background", "poster", "onload", "onerror"} & set(attributes)
        if "src" in attributes:
            assert (tag, attributes["src"][:22]) == ("img", "data:image/png;base64,")
        assert "href" not in attributes or tag == "a"
    style = rendered(report, tmp_path).split("<style>")[1].split("</style>")[0]
    assert not re.search(r"url\(|@import|https?:", style)


def test_the_plots_are_the_files(report, tmp_path):
    images = [a for tag, a in Page(rendered(report, tmp_path)).elements if tag == "img"]
    assert [base64.b64decode(image["src"].split(",")[1]) for image in images] == [PNG] * 3
    assert all(image["alt"] for image in images)


def test_the_headline(report, tmp_path):
    seen = words_of(rendered(report, tmp_path))
    assert "The gate passed 0.45 → 0.69 +0.24 95 % interval +0.16 to +0.32 SemScore of the reworded questions" in seen
    assert "above the threshold of +0.05." in seen


def test_a_refusal_and_a_split_by_rows_are_said_at_the_top(report, tmp_path):
    report.gate = GateReport(passed=False, reasons=["reworded is not proven better."])
    report.data.protocol, report.data.leaking_test_rows = "rows", 91
    top = words_of(rendered(report, tmp_path)).split("Before and after")[0]
    assert "The gate did not pass" in top
    assert "reworded is not proven better." in top
    assert "Split by rows: 91 test rows" in top


def test_a_headline_on_other_grounds_than_it_seems_says_so(report, tmp_path):
    assert "dev share" not in rendered(report, tmp_path)
    report.split = "dev"
    report.data.reworded_by = {"template": 40, "instruction": 17}
    page = " ".join(rendered(report, tmp_path).split())
    assert "Measured on the dev share" in page
    assert "17 of" in page
    assert "change only the instruction" in page


def test_the_stand_in_is_named_and_a_judge_is_not_called_one(report, tmp_path):
    assert "Truthfulness stand-in: similarity" in section(rendered(report, tmp_path), "Truthfulness")
    report.metrics.truthfulness.judge, report.metrics.truthfulness.stand_in = "gpt-5-mini", False
    said = section(rendered(report, tmp_path), "Truthfulness")
    assert said.startswith("Truthfulness gpt-5-mini")
    assert "stand-in" not in said


def test_unknown_is_a_dash_and_zero_is_zero(report, tmp_path):
    report.cost = CostReport(seconds=5.0, gpu_hours=0.0)
    cost = section(rendered(report, tmp_path), "Cost")
    start = "Cost time 5.0 s time of work – GPU hours 0.00 energy unknown tokens – trained tokens – operations – "
    assert cost.startswith(f"{start}money no price peak memory, GiB – not spent again – Of this run alone")
    stages = section(rendered(report, tmp_path), "Stages")
    assert "pretrain skipped – pretrain.enabled is false –" in stages
    assert "report ran 3.9 s – –" in stages


def test_a_cached_stage_links_to_the_run_that_made_it(report, tmp_path):
    links = {a["href"] for tag, a in Page(rendered(report, tmp_path)).elements if tag == "a"}
    assert {report.stages[0].from_run_url, RUN_URL, report.endpoint.url} == links


def test_only_web_addresses_become_links(report, tmp_path):
    report.run_url = "javascript:alert(1)"
    report.stages[0].from_run_url = None
    report.endpoint = None
    page = rendered(report, tmp_path)
    assert "<a " not in page
    assert "brave-otter" in page
    assert section(page, "Endpoint") == "Endpoint This run has no endpoint."


@pytest.mark.parametrize("rung", ["reworded", "studied", "unseen"])
def test_a_missing_rung_is_no_rows(report, rung, tmp_path):
    setattr(report.metrics.semscore, rung, None)
    setattr(report.metrics.truthfulness, rung, None)
    page = rendered(report, tmp_path)
    assert section(page, "SemScore").count("no rows") == 1
    assert section(page, "Truthfulness").count("no rows") == 1
    assert ("There are no reworded rows" in words_of(page)) == (rung == "reworded")


def test_an_empty_run_has_a_page(tmp_path):
    report = make_report(
        metrics=Metrics(semscore=SemScore(), truthfulness=Truthfulness(judge="", stand_in=True)),
        training=[],
        examples=[],
        stages=[],
        endpoint=None,
    )
    seen = words_of(rendered(report, tmp_path))
    assert "Nothing was trained in this run." in seen
    assert "There are no examples." in seen


def test_the_checks_of_a_promotion_have_one_of_three_verdicts(report, tmp_path):
    report.promotion = [
        CheckReport(name="healthy", passed=True, words="at once", seconds=1),
        CheckReport(name="not worse", passed=False, skipped=True, words="it does not answer", seconds=2),
        CheckReport(name="load run", passed=False, words="too slow", seconds=3),
    ]
    page = rendered(report, tmp_path)
    said = section(page, "Endpoint")
    assert "healthy passed at once 1.0 s not worse skipped it does not answer 2.0 s load run failed too slow" in said
    assert '<span class="status skipped">skipped</span>' in page


def test_the_data_card(report, tmp_path):
    said = section(rendered(report, tmp_path), "Data")
    assert "usable rows 1,064" in said
    assert "leaks removed 6" in said
    assert "not reworded 9" in said
    assert "rows by source exams 143 terms 684 lectures 237" in said
    assert "dropped, by reason duplicate 14 no-answer 3 unreadable-json 1" in said
    assert "terms/terms_data_2.json 41 duplicate same as line 12: 'FOB'" in said
    assert "exams/exam_05.json – unreadable-json <EOF> at column 381" in said


def test_nested_settings_are_flat():
    settings = {"lr": 7e-4, "lora": {"rank": 32, "targets": ["q", "k"]}, "packing": False, "seed": None, "more": {}}
    assert flat(settings) == {
        "lr": "0.0007",
        "lora.rank": "32",
        "lora.targets": '["q", "k"]',
        "packing": "false",
        "seed": "–",
        "more": "{}",
    }
