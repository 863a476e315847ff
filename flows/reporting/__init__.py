"""The report of a run: plots, `report.html`, `report.json` and the Markdown summary.

To show one more figure: add it to `contract.py`, then to `report.html.j2` (and to `markdown.py` where it is needed at a
glance).
"""
