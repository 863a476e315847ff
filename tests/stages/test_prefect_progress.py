import logging

import httpx

from flows.stages import prefect_progress
from flows.stages.prefect_progress import ProgressArtifact


def test_a_prefect_that_does_not_answer_ends_no_stage(monkeypatch, caplog):
    def refuse(*arguments, **named):
        raise httpx.ConnectError("connection refused")

    monkeypatch.setattr(prefect_progress, "create_progress_artifact", refuse)
    monkeypatch.setattr(prefect_progress, "get_run_logger", lambda: logging.getLogger("run"))
    ProgressArtifact("finetune")(1, 2, "step 1", loss=0.5)
    assert "progress artifact of finetune could not be updated: connection refused" in caplog.text
