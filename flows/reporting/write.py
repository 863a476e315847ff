"""The files of a report in the folder of a run."""

from __future__ import annotations

from pathlib import Path

from flows.reporting.contract import RunReport
from flows.reporting.html import report_html
from flows.store.files import write_atomically


def write_report(report: RunReport, run_dir: Path) -> None:
    """Write semscore.png, truthfulness_result.png, loss.png and variants.png (if any), report.html, report.json.

    Each file appears whole; `report.json` comes last, so where it is the others are. May be called again with more
    known (an endpoint, say): every file is replaced.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    # here: matplotlib takes half a second, and what starts a run draws nothing
    from flows.reporting.plots import loss_plot, semscore_plot, truthfulness_plot, variants_plot

    run_dir.mkdir(parents=True, exist_ok=True)
    semscore = semscore_plot(report.metrics, run_dir / "semscore.png")
    truthfulness = truthfulness_plot(report.metrics.truthfulness, run_dir / "truthfulness_result.png")
    loss = loss_plot(report.training, run_dir / "loss.png") if report.training else None
    if loss is None:
        (run_dir / "loss.png").unlink(missing_ok=True)
    variants = variants_plot(report.variants, run_dir / "variants.png") if report.variants else None
    write_atomically(run_dir / "report.html", report_html(report, semscore, truthfulness, loss, variants))
    write_atomically(run_dir / "report.json", report.model_dump_json(indent=2) + "\n")
