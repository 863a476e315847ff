"""`report.html`: the whole report in one file that needs no network."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flows.corpus.row import HELD_OUT_RUNGS
from flows.reporting import words
from flows.reporting.contract import RunReport


def report_html(
    report: RunReport,
    semscore_png: Path,
    truthfulness_png: Path,
    loss_png: Path | None,
    variants_png: Path | None = None,
) -> str:
    """The report as one HTML page; the plots are put into it as data URIs, texts of users are escaped.

    Raises:
        OSError: a plot cannot be read.
    """
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            rungs=HELD_OUT_RUNGS,
            semscores={rung: getattr(report.metrics.semscore, rung) for rung in HELD_OUT_RUNGS},
            truths={rung: getattr(report.metrics.truthfulness, rung) for rung in HELD_OUT_RUNGS},
            semscore_png=data_uri(semscore_png),
            truthfulness_png=data_uri(truthfulness_png),
            loss_png=data_uri(loss_png) if loss_png else None,
            variants_png=data_uri(variants_png) if variants_png else None,
            words=words,
        )
    )


def data_uri(png: Path) -> str:
    """A PNG as text that stands where an address of an image stands."""
    return f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}"


def is_web(url: str | None) -> bool:
    """True for addresses that may become a link: http and https, nothing that a browser would run."""
    return bool(url) and str(url).startswith(("http://", "https://"))


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as `lora.rank: 32`; lists as JSON, None as a dash."""
    lines: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            lines |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | dict | bool):
            lines[f"{prefix}{key}"] = json.dumps(value, ensure_ascii=False, default=str)
        else:
            lines[f"{prefix}{key}"] = words.or_dash(value)
    return lines


def environment() -> Environment:
    """Templates of this folder, in which texts of users are escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.number,
        "signed": words.signed,
        "interval": words.interval,
        "signed_interval": words.signed_interval,
        "duration": words.duration,
        "dash": words.or_dash,
        "flat": flat,
    }
    environment.tests["web"] = is_web
    return environment
