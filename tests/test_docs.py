"""What the docs say of the tests is so."""

import re

import pytest

from deployments.local import CHECKOUT

NAMED = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


@pytest.mark.parametrize("page", sorted(page.name for page in (CHECKOUT / "docs").glob("*.md")))
def test_every_test_that_a_page_names_is_there(page):
    for file, name in NAMED.findall((CHECKOUT / "docs" / page).read_text("utf-8")):
        assert f"def {name}(" in (CHECKOUT / file).read_text("utf-8"), (file, name)


def test_every_feature_has_a_field_and_a_test():
    text = (CHECKOUT / "docs" / "pipelines.md").read_text("utf-8")
    table = text.partition("## What FastTrack has")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 16
    for feature, field, test in rows:
        assert field.strip(), feature
        assert NAMED.search(test), feature
