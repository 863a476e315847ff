"""The page of all runs: the artifact `runs`, its plot, and `runs.html` in the store."""

from __future__ import annotations

from prefect import get_run_logger
from prefect.artifacts import create_image_artifact, create_markdown_artifact

from flows.reporting.html import data_uri
from flows.reporting.runs import RunLine, count_line, read_runs, runs_html, runs_markdown
from flows.store.files import write_atomically
from flows.store.layout import Store

PAGE = "runs"


def show_runs(store: Store) -> list[RunLine]:
    """Write the page into the store's folder on this machine and show it; returns the runs, the newest first.

    Raises:
        OSError: the store cannot be written to.
        BucketError: the bucket does not answer.
    """
    from flows.reporting.runs_plot import runs_plot  # here: matplotlib takes half a second

    runs = read_runs(*store.ended_runs())
    page = store.root / "runs.html"
    plot = runs_plot(runs, store.root / "runs.png")
    write_atomically(page, runs_html(runs, plot))
    create_markdown_artifact(runs_markdown(runs, plot, page), key=PAGE, description=count_line(runs))
    if plot is not None:
        create_image_artifact(data_uri(plot), key=f"{PAGE}-cost", description="What each run has gained and cost")
    return runs


def refresh_runs(store: Store) -> None:
    """The same at the end of a run, which ends as it does even if the page cannot be made."""
    try:
        show_runs(store)
    except Exception as error:  # of the disk, of Prefect, of another run's damaged report
        get_run_logger().warning("The page of all runs could not be made: %s", error)
