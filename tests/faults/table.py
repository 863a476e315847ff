"""The table of faults for people: build/faults.json, brought into docs/serving.md.

.venv/bin/python -m tests.faults.table [FILE]
"""

import json
import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "serving.md"
BEGIN, END = "<!-- made by python -m tests.faults.table -->\n", "<!-- end of the table -->\n"
LONGEST = 280


def markdown(rows):
    """The rows as a table."""
    lines = ["| fault | expected | seen | after | then |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        fault = f"{row['fault']} ({row['on']})" if row["on"] else row["fault"]
        cells = (fault, row["expected"], _seen(row), _after(row), row["action"])
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _seen(row):
    if row["skipped"]:
        return f"not run: {row['skipped']}"
    text = row["seen"]
    text = re.sub(r"/tmp/\S*/(\S+?)(?=[\s:;,.]|$)", r"…/\1", text).replace(str(CHECKOUT), "…")
    text = "".join(c for c in text if c.isprintable()).replace("<", "&lt;")
    text = text if len(text) <= LONGEST else f"{text[:LONGEST].rsplit(' ', 1)[0]} …"
    return text if row["passed"] else f"**failed** {text}"


def _after(row):
    seconds = row["seconds_to_see"]
    if seconds is None:
        return ""
    if row["clock"] == "passes":
        return f"{seconds:g} s *"
    return f"{seconds:.1f} s" if seconds >= 0.05 else "at once"


def main(file="build/faults.json"):
    """Write the table over the one in the page."""
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = json.loads((CHECKOUT / file).read_text("utf-8"))
    PAGE.write_text(f"{before}{BEGIN}\n{markdown(rows)}\n{END}{after}", "utf-8")
    failed = [row["test"] for row in rows if not row["passed"] and not row["skipped"]]
    print(f"{len(rows)} rows, {len(failed)} failed {failed or ''}")


if __name__ == "__main__":
    main(*sys.argv[1:])
