"""The checks of a promotion: what passed, what was refused, what could not be checked, and what else ended it."""

import pytest

from flows.reporting.contract import CheckReport
from flows.reporting.promotion import checks_markdown, checks_verdict
from tests.reporting.test_markdown import drawn

HEALTHY = CheckReport(name="healthy", passed=True, words="HEALTHY at http://a", seconds=1.25)
LOAD = CheckReport(name="load run", passed=True, words="9.0 tokens/s", seconds=2)
BAD = CheckReport(name="approval", passed=False, words="no", seconds=3)
SKIPPED = CheckReport(name="not worse", passed=False, skipped=True, words="it <b>does not</b> answer", seconds=4)
STAYS = "what served before goes on serving"


@pytest.mark.parametrize(
    ("checks", "error", "verdict"),
    [
        ([HEALTHY], "", "1 check passed"),
        ([HEALTHY, LOAD], "", "2 checks passed"),
        ([HEALTHY, SKIPPED, LOAD], "", "2 checks passed, 1 skipped"),
        ([HEALTHY, BAD], "The promotion is refused. approval: no", f"refused by approval; {STAYS}"),
        (
            [HEALTHY, SKIPPED],
            "Its disk is full.\nLog: /tmp/x",
            f"ended by an error after 1 check passed, 1 skipped: Its disk is full; {STAYS}",
        ),
    ],
)
def test_the_verdict_says_what_was_checked_and_how_it_ended(checks, error, verdict):
    assert checks_verdict(checks, error) == verdict
    assert verdict[1:] in drawn(checks_markdown("terms", checks, error))


def test_a_check_that_could_not_be_made_is_shown_as_skipped():
    page = drawn(checks_markdown("terms", [HEALTHY, SKIPPED, BAD]))
    assert "<td>healthy</td>\n<td>passed</td>\n<td>1.2 s</td>" in page
    assert "<td>not worse</td>\n<td>skipped</td>\n<td>4.0 s</td>" in page
    assert "<td>approval</td>\n<td><strong>failed</strong></td>\n<td>3.0 s</td>" in page


def test_figures_stand_below_the_table_where_lines_are_broken():
    table, figures = drawn(checks_markdown("terms", [HEALTHY, SKIPPED])).split("</table>")
    assert HEALTHY.words not in table
    assert "<li><strong>healthy</strong>: HEALTHY at http://a</li>" in figures
    assert "<li><strong>not worse</strong>: it &lt;b&gt;does not&lt;/b&gt; answer</li>" in figures
