from types import SimpleNamespace

import pytest

from flows.store.attempts import ENVIRONMENT_VARIABLE, SupersededError, take
from flows.training.checkpoints import newest_whole
from flows.training.progress_callback import ProgressCallback


def test_who_was_taken_over_writes_no_checkpoint(tmp_path, monkeypatch):
    attempt = take(tmp_path / "finetune-a")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, attempt.environment[ENVIRONMENT_VARIABLE])
    (tmp_path / "checkpoint-5").mkdir()
    args, state = SimpleNamespace(output_dir=str(tmp_path), device="cpu"), SimpleNamespace(global_step=5, max_steps=9)
    callback = ProgressCallback(lambda *report, **figures: None, 100, 0.0, tmp_path / "stop.txt")
    callback.on_step_end(args, state, SimpleNamespace(should_save=True))

    take(tmp_path / "finetune-a")
    callback.on_step_end(args, state, SimpleNamespace(should_save=False))
    with pytest.raises(SupersededError):
        callback.on_step_end(args, state, SimpleNamespace(should_save=True))
    with pytest.raises(SupersededError):
        callback.on_save(args, state, SimpleNamespace())
    assert newest_whole(tmp_path) is None
