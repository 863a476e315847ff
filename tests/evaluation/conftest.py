import pytest

from flows.corpus.row import Row


@pytest.fixture
def row():
    """Make a held-out row; its group is its own id unless given."""

    def _row(number, question="What is it?", answer="A part.", rung="reworded", **values):
        values = {"group": f"g{number}", "split": "test"} | values
        return Row(id=f"r{number}", source="s", context="", question=question, answer=answer, rung=rung, **values)

    return _row


@pytest.fixture
def rows(row):
    """Ten rows whose prompts have very different lengths."""
    return [
        row(n, question=f"What is part {n}? " + "Tell me of the bill of lading. " * (7 * n % 10), answer=f"Part {n}.")
        for n in range(10)
    ]
