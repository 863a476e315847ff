"""The evaluation of what is served: held-out rows through the endpoint, against another model or the offline run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flows.corpus.row import Row
from flows.endpoint_client.batch import complete
from flows.endpoint_client.request import BatchOptions, Request
from flows.endpoint_client.target import Target
from flows.errors import EvaluationError
from flows.evaluation.bootstrap import estimate
from flows.evaluation.results import Estimate, Result
from flows.evaluation.semscore import Scored
from flows.training.chat import prompt_messages

RETRIES = 3
TIMEOUT_S = 120.0


class LiveComparison(Result):
    """SemScore of the candidate's replies against a reference on the same rows, with paired differences."""

    rows: int
    candidate: Estimate
    reference: Estimate
    delta: Estimate
    passed: bool
    reason: str


def live_requests(rows: Sequence[Row]) -> list[Request]:
    """What is asked: the messages that the model was trained on, for the server's chat template."""
    return [Request(id=row.id, messages=prompt_messages(row)) for row in rows]


def live_replies(
    target: Target,
    rows: Sequence[Row],
    max_tokens: int,
    concurrency: int,
    kept: Path | None,
    done: Callable[[int], None],
) -> list[str]:
    """Greedy replies of the endpoint to `rows`, in order; see `complete` for `kept` and `done`.

    Give the same `max_tokens` as the evaluation had (`max_new_tokens`) where its scores are compared.

    Raises:
        RefusedError, NoAnswerError: a row stayed without a reply.
    """
    options = BatchOptions(concurrency=concurrency, max_tokens=max_tokens, retries=RETRIES, timeout_s=TIMEOUT_S)
    return [found.text.strip() for found in complete(target, live_requests(rows), options, kept, done)]


def compare(
    rows: Sequence[Row], candidate: list[str], reference: list[str], embedder: str, margin: float
) -> LiveComparison:
    """The candidate's replies against those of another endpoint, such as the one that serves now.

    It fails when it is proven worse, as in the gate: the upper end of the 95 % interval of the mean difference is below
    `-margin`. Of few rows little can be proven.

    Raises:
        EvaluationError: there are no rows, or no such embedder.
    """
    _some(rows)
    scored = Scored(embedder, list(rows), reference, candidate)
    return _judged(rows, scored.trained.tolist(), scored.base.tolist(), margin, "the model that serves now")


def check_against_offline(
    rows: Sequence[Row], candidate: list[str], offline_scores: Mapping[str, float], embedder: str, margin: float
) -> LiveComparison:
    """The served model's replies against the scores that the same model had in the evaluate stage, row by row.

    A loss says that it is served otherwise than it was measured: another chat template, a quantization, stop tokens.
    The same model should answer the same, so a mean difference below `-margin` fails it too, proven or not.
    `embedder` must be the evaluation's own.

    Raises:
        EvaluationError: a row has no offline score, or there are no rows.
    """
    _some(rows)
    missing = [row.id for row in rows if row.id not in offline_scores]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(rows)} rows have no score in the offline evaluation, the first: {missing[0]}. "
            "Take the rows and the evaluation of one run."
        )
    scored = Scored(embedder, list(rows), candidate, candidate)
    offline = [offline_scores[row.id] for row in rows]
    return _judged(rows, scored.trained.tolist(), offline, margin, "its own offline evaluation", True)


def _some(rows: Sequence[Row]) -> None:
    if not rows:
        raise EvaluationError("There are no held-out rows to ask the endpoint.")


def _judged(
    rows: Sequence[Row],
    candidate: list[float],
    reference: list[float],
    margin: float,
    against: str,
    mean_counts: bool = False,
) -> LiveComparison:
    groups = [row.group for row in rows]
    differences = [one - other for one, other in zip(candidate, reference, strict=True)]
    delta = estimate(differences, groups, (-2.0, 2.0))
    low, high = delta.ci95
    proven = high < -margin
    passed = not proven and not (mean_counts and delta.mean < -margin)
    verb = "is not proven to lose" if passed else "is proven to lose" if proven else "loses"
    if passed and high < 0:
        verb = "loses, but is not proven to lose"
    own, others = estimate(candidate, groups, (-1.0, 1.0)), estimate(reference, groups, (-1.0, 1.0))
    return LiveComparison(
        rows=len(rows),
        candidate=own,
        reference=others,
        delta=delta,
        passed=passed,
        reason=f"SemScore {own.mean:.3f} against {others.mean:.3f} of {against}; it {verb} more than {margin:.3f} "
        f"(difference {delta.mean:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}, {len(rows)} rows)",
    )
