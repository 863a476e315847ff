"""What `make demo > log` shows while it waits."""

import io

from rich.console import Console

from deployments.demo_progress import lines, shown


def seen(stage, done, total=10, **figures):
    return {"stage": stage, "done": done, "total": total, "note": "", "figures": figures}


def test_a_file_gets_a_line_a_stage_and_a_line_a_minute():
    file, now = io.StringIO(), [0.0]
    show = lines(Console(file=file, highlight=False), lambda: now[0])
    for at, progress in [
        (1, seen("prepare", 0, 0)),
        (5, seen("train", 1, loss=2.5)),
        (64, seen("train", 2, loss=2.0)),
        (65, seen("train", 3, loss=1.25)),
        (66, seen("[serve]", 4)),
    ]:
        now[0] = at
        show(progress)
    assert file.getvalue().splitlines() == [
        "  waiting for the worker",
        "     1 s  prepare",
        "     5 s  train       10 %   loss 2.5",
        "    65 s  train       30 %   loss 1.25",
        "    66 s  [serve]     40 %",
    ]


def test_only_a_terminal_gets_the_bar():
    written = {}
    for terminal in (True, False):
        file = io.StringIO()
        with shown(Console(file=file, force_terminal=terminal, width=100)) as show:
            show(seen("train", 5))
        written[terminal] = file.getvalue()
    assert "\x1b[" in written[True]
    assert "50 %" in written[False]
    assert "\x1b[" not in written[False]
