"""The table of faults for people: build/faults.json, each part brought into its page of the docs.

.venv/bin/python -m tests.faults.table [FILE]
"""

import json
import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PAGES = {"serving": CHECKOUT / "docs" / "serving.md", "kills": CHECKOUT / "docs" / "pipelines.md"}
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
    return text if row["holds"] else f"**failed** {text}"


def _after(row):
    seconds = row["seconds_to_see"]
    if seconds is None:
        return ""
    if row["clock"] == "passes":
        return f"{seconds:g} s *"
    return f"{seconds:.1f} s" if seconds >= 0.05 else "at once"


def main(file="build/faults.json"):
    """Write each part's table over the one in its page."""
    rows = json.loads((CHECKOUT / file).read_text("utf-8"))
    for part, page in PAGES.items():
        before, _, rest = page.read_text("utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        if not (of_part := [row for row in rows if row["part"] == part]):
            continue  # a run of some of the tests: what others have shown stays
        table = markdown(of_part)
        page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", "utf-8")
    failed = [row["test"] for row in rows if not row["holds"] and not row["skipped"]]
    print(f"{len(rows)} rows, {len(failed)} failed {failed or ''}")


if __name__ == "__main__":
    main(*sys.argv[1:])
