"""Variant `transformers`: the OpenAI-compatible server of the transformers package, pinned to one model folder."""

from __future__ import annotations

import sys
from pathlib import Path

from flows.serving.config import ServeConfig
from flows.serving.variants.launch import Launch


def launch(config: ServeConfig, model_dir: Path, port: int) -> Launch:
    """The command that serves `model_dir` on 127.0.0.1:`port`; clients name the folder's path as their model."""
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model_dir)]
    return Launch(
        command=[*command, "--host", "127.0.0.1", "--port", str(port)],
        env={
            "OMP_NUM_THREADS": str(config.threads),
            "MKL_NUM_THREADS": str(config.threads),
            # A local folder needs no network; without the second one the command looks for updates on PyPI.
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "PYTHONUNBUFFERED": "1",
        },
        model=str(model_dir),
        ready_path="/health",
    )
