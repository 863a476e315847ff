import base64

from markdown_it import MarkdownIt  # comes with Prefect (through rich)

from flows.reporting.contract import GateReport
from flows.reporting.markdown import MOST, plain, summary_markdown, verdict_line


def drawn(markdown: str) -> str:
    """The HTML that a GitHub-like Markdown renderer makes of it, raw HTML allowed (the worst case)."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)


def test_the_verdict_is_one_sentence(report):
    assert verdict_line(report) == (
        "The gate passed: reworded SemScore 0.45 → 0.69 (+0.24, 95 % interval +0.16 to +0.32, n = 57)."
    )
    report.gate = GateReport(passed=False, reasons=["reworded is not proven better.", "unseen is proven worse."])
    report.metrics.semscore.reworded = None
    assert verdict_line(report) == "The gate did not pass: no reworded rows, so there is no headline figure."


def test_verdict_plot_metrics_examples_stages_links_in_this_order(report, tmp_path):
    png = tmp_path / "semscore.png"
    png.write_bytes(b"a picture")
    summary = summary_markdown(report, png)
    places = [
        summary.index(text)
        for text in (
            "**The gate passed: ",
            f"(data:image/png;base64,{base64.b64encode(b'a picture').decode()})",
            "| reworded | 57 | 0.45 (0.41 to 0.50) | 0.69 (0.63 to 0.74) | **+0.24** | +0.16 to +0.32 | better |",
            "Truthfulness, stand-in: similarity",
            "## Before and after",
            "## Stages",
            f"[brave-otter](<{report.stages[0].from_run_url}>)",
            "## Links",
            f"](<{report.endpoint.url}>)",
        )
    ]
    assert places == sorted(places)


def test_without_a_plot_there_is_no_image(report):
    assert "![" not in summary_markdown(report, None)


def test_texts_of_users_are_neither_markdown_nor_html(report):
    page = drawn(summary_markdown(report, None))
    assert page.count("<table>") == 3 + len(report.examples)
    assert "<script" not in page
    assert (
        "<td>&lt;script&gt;alert('x')&lt;/script&gt; | is | a | table &amp; more # not a heading ``` code ```</td>"
        in page
    )
    for example in report.examples:
        assert " ".join(example.question.split()).replace("<", "&lt;").replace(">", "&gt;") in page


def test_long_replies_are_clipped_and_none_is_a_dash():
    assert plain("가" * 2000) == "가" * (MOST - 1) + "…"
    assert plain("") == plain(None) == "–"


def test_missing_rungs_and_unknown_values_are_dashes(report):
    report.metrics.semscore.studied = None
    report.metrics.truthfulness.studied = None
    summary = summary_markdown(report, None)
    assert "| studied | – | – | – | – | – | no rows | – | – |" in summary
    assert "| studied | – | – | – | no rows |" in summary
    assert "| pretrain | skipped | – | pretrain.enabled is false | – |" in summary
