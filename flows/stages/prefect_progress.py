"""Progress as a Prefect artifact, updated at most every two seconds."""

from __future__ import annotations

import time
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

EVERY_S = 2.0
LOG_EVERY_S = 30.0


class ProgressArtifact:
    """Made at the first report; shows percent, the note and the newest figures."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.artifact: UUID | None = None
        self.shown = 0.0
        self.logged = time.monotonic()

    def __call__(self, done: float, total: float, note: str = "", /, **figures: float) -> None:
        """Show it, unless the last one was just now."""
        now = time.monotonic()
        if self.artifact is not None and now - self.shown < EVERY_S and done < total:
            return
        self.shown = now
        try:
            self._show(now, done, total, note, figures)
        except Exception as error:  # of whatever client: progress is nice to have, the stage goes on
            get_run_logger().warning("The progress artifact of %s could not be updated: %s", self.stage, error)
            self.artifact = None

    def _show(self, now: float, done: float, total: float, note: str, figures: dict[str, float]) -> None:
        percent = 100 * done / total if total else 0.0
        words = " · ".join([part for part in (note, *(f"{key} {value:.4g}" for key, value in figures.items())) if part])
        if self.artifact is None:
            made = create_progress_artifact(percent, key=f"{self.stage}-progress", description=f"{self.stage}: {words}")
            self.artifact = UUID(str(made))
        else:
            update_progress_artifact(self.artifact, percent, description=f"{self.stage}: {words}")
        if now - self.logged > LOG_EVERY_S:
            self.logged = now
            get_run_logger().info("%s: %.0f %% %s", self.stage, percent, words)
