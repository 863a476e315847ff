import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from flows.evaluation.results import Estimate, Metrics, RungTruthfulness, SemScore, Truthfulness
from flows.reporting import plots
from flows.reporting.contract import VariantReport
from flows.reporting.markdown import summary_markdown
from flows.reporting.write import write_report
from tests.reporting.conftest import make_report


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_the_semscore_plot_says_every_figure_of_every_rung(report):
    figure = plots.semscore_figure(report.metrics)
    said = texts(figure)
    for rung, change, verdict in (
        ("reworded", "+0.24 (+0.16 to +0.32)", "better, n = 57"),
        ("studied", "+0.02 (−0.04 to +0.08)", "not proven, n = 24"),
        ("unseen", "−0.04 (−0.10 to +0.02)", "not proven, n = 26"),
    ):
        assert {rung, change, verdict} <= set(said)
    assert {"floor 0.19", "floor 0.21", "floor 0.18", "0.45", "0.69", "embedder: packaged:all-MiniLM-L6-v2"} <= set(
        said
    )
    assert said.count("ceiling 1.00") == 3
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["base", "trained"] * 3


def test_bars_and_whiskers_stand_where_the_figures_say(report):
    axes = plots.semscore_figure(report.metrics).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.452, 0.691, 0.437, 0.455, 0.461, 0.418]
    assert list(axes.lines[1].get_xdata()) == pytest.approx([0.631, 0.741])


def test_a_rung_without_rows_says_so_and_has_no_bar(report):
    report.metrics.semscore.studied = None
    figure = plots.semscore_figure(report.metrics)
    assert texts(figure).count("no rows") == 1
    assert len(figure.axes[0].patches) == 4


def test_negative_scores_are_inside_the_plot(report):
    score = report.metrics.semscore.unseen
    score.base.mean, score.base.ci95 = -0.1, (-0.3, 0.1)
    assert plots.semscore_figure(report.metrics).axes[0].get_xlim()[0] == -0.3


def test_the_title_names_the_stand_in(report):
    assert "Truthfulness (stand-in: similarity)" in texts(plots.truthfulness_figure(report.metrics.truthfulness))


def test_the_title_names_the_judge(report):
    report.metrics.truthfulness.judge, report.metrics.truthfulness.stand_in = "gpt-5-mini", False
    said = texts(plots.truthfulness_figure(report.metrics.truthfulness))
    assert "Truthfulness: gpt-5-mini" in said
    assert not any("stand-in" in text for text in said)


def test_a_panel_a_rung_with_rows_and_unparsed_only_where_there_is_any():
    counts = RungTruthfulness(base={"1": 3, "unparsed": 2}, trained={"5": 5})
    figure = plots.truthfulness_figure(Truthfulness(judge="j", stand_in=False, unseen=counts))
    assert len(figure.axes) == 1
    assert [bar.get_height() for bar in figure.axes[0].patches] == [3, 0, 0, 0, 0, 2, 0, 0, 0, 0, 5, 0]
    assert "unparsed" in texts(figure)
    assert "unparsed" not in texts(plots.truthfulness_figure(make_report().metrics.truthfulness))


def test_loss_has_a_panel_a_stage_and_says_where_nothing_was_logged(report):
    silent = report.training[0].model_copy(update={"stage": "pretrain", "loss": []})
    figure = plots.loss_figure([silent, *report.training])
    assert {"pretrain", "finetune", "no loss was logged"} <= set(texts(figure))
    assert figure.axes[1].lines[0].get_xydata().tolist() == [list(point) for point in report.training[0].loss]


def test_every_plot_is_an_opaque_white_png_that_leaves_nothing_beside(report, tmp_path):
    before = dict(matplotlib.rcParams)
    empty = Metrics(semscore=SemScore(), truthfulness=Truthfulness(judge="", stand_in=True))
    made = [
        plots.semscore_plot(report.metrics, tmp_path / "a.png"),
        plots.semscore_plot(empty, tmp_path / "b.png"),
        plots.truthfulness_plot(report.metrics.truthfulness, tmp_path / "c.png"),
        plots.truthfulness_plot(empty.truthfulness, tmp_path / "d.png"),
        plots.loss_plot(report.training, tmp_path / "e.png"),
    ]
    assert sorted(tmp_path.iterdir()) == made
    for path in made:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.convert("RGBA").getpixel((2, 2)) == (255, 255, 255, 255)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("draw", ["semscore", "truthfulness", "loss"])
def test_nothing_leaves_the_picture(report, draw):
    """A phone cannot scroll inside an image."""
    report.metrics.truthfulness.judge, report.metrics.truthfulness.stand_in = "an/organisation/with-a-long-judge", False
    for score in (report.metrics.semscore.reworded, report.metrics.semscore.studied):
        score.embedder = "/a/folder/far/away/with/a/model/of/sentence/embeddings/in/it"
        score.floor, score.trained.mean, score.trained.ci95, score.n = 0.78, 0.99, (0.98, 1.0), 25_993
    figure = {
        "semscore": lambda: plots.semscore_figure(report.metrics),
        "truthfulness": lambda: plots.truthfulness_figure(report.metrics.truthfulness),
        "loss": lambda: plots.loss_figure(report.training * 2),
    }[draw]()
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()
    assert drawn.x0 >= 0
    assert drawn.y0 >= 0
    assert drawn.x1 <= figure.get_figwidth()
    assert drawn.y1 <= figure.get_figheight()


VARIANTS = [
    VariantReport(
        name="slow",
        overrides=["finetune.learning_rate=0.0001"],
        n=24,
        trained=Estimate(mean=0.41, ci95=(0.35, 0.48)),
        delta=Estimate(mean=0.08, ci95=(-0.01, 0.17)),
        seconds=171.0,
    ),
    VariantReport(
        name="fast",
        overrides=["finetune.learning_rate=0.001"],
        n=24,
        trained=Estimate(mean=0.51, ci95=(0.45, 0.58)),
        delta=Estimate(mean=0.18, ci95=(0.1, 0.26)),
        seconds=168.0,
        chosen=True,
    ),
    VariantReport(name="wild", overrides=["finetune.learning_rate=9"], why="The loss is not a number any more."),
]


def test_the_plot_of_variants_says_which_was_chosen_and_which_failed():
    figure = plots.variants_figure(VARIANTS)
    said = texts(figure)
    assert {"slow", "+0.08 (−0.01 to +0.17)", "chosen: +0.18 (+0.10 to +0.26)", "wild", "failed"} <= set(said)
    assert "reworded questions of the dev share, n = 24" in said


def test_variants_stand_in_page_summary_and_folder(report, tmp_path):
    told = report.model_copy(update={"variants": VARIANTS})
    write_report(told, tmp_path)
    page = (tmp_path / "report.html").read_text()
    summary = summary_markdown(told, None)
    for words in ("finetune.learning_rate=0.001", "The loss is not a number any more.", "+0.18"):
        assert words in page
        assert words.replace("_", "\\_") in summary
    assert (tmp_path / "variants.png").stat().st_size > 10_000
    write_report(report, tmp_path)
    assert "Variants" not in (tmp_path / "report.html").read_text()
