"""Tells the outside how far training is, marks whole checkpoints, and keeps the loss curve."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from flows.cost.counter import done_here
from flows.progress import Progress
from flows.store.attempts import check_own
from flows.training import team
from flows.training.checkpoints import mark_whole


class ProgressCallback(TrainerCallback):
    """One per training. `tokens` are those of the whole training, evenly spread over its steps.

    Once there is a `stop_file`, training ends after the step that is under way, with a checkpoint; `stopped` is then
    what the file says.
    """

    def __init__(self, progress: Progress, tokens: float, flops_per_token: float, stop_file: Path) -> None:
        self.progress = progress
        self.tokens = tokens
        self.flops_per_token = flops_per_token
        self.stop_file = stop_file
        self.stopped = ""
        self.first_step = 0
        self.started = 0.0
        self.seconds = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Remember where a resumed training starts."""
        self.first_step = state.global_step
        self.started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Count what the step has cost; write no checkpoint if another run has taken this training over."""
        tokens = self.tokens / max(1, state.max_steps)
        done_here.add(tokens, tokens * self.flops_per_token)
        if state.global_step < state.max_steps and _all_agree(self.stop_file.exists(), args.device):
            self.stopped = self.stop_file.read_text("utf-8")
            control.should_save = control.should_training_stop = True
        if control.should_save:
            check_own()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: Any) -> None:
        """Report the loss and the speed since the start of this process."""
        if not logs or "loss" not in logs:
            return
        share = (state.global_step - self.first_step) / max(1, state.max_steps)
        speed = share * self.tokens / max(time.monotonic() - self.started, 1e-9)
        self.progress(
            state.global_step,
            state.max_steps,
            f"step {state.global_step} of {state.max_steps}",
            loss=float(logs["loss"]),
            learning_rate=float(logs.get("learning_rate", 0.0)),
            tokens_per_s=speed,
        )

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """The trainer has written the checkpoint, in all processes: from now on it may be resumed from."""
        check_own()
        team.together().wait_for_everyone()
        if team.leads():
            mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Stop the clock before anything is merged or saved."""
        self.seconds = time.monotonic() - self.started


def _all_agree(stop: bool, device: Any) -> bool:
    """Whether to stop, the same in all processes of a training: one that went on alone would wait for ever."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return stop
    votes = torch.tensor(int(stop), device=device)
    torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MIN)
    return bool(votes.item())
