"""Measurements, each beside an alternative run in the same process tree: `make bench`, `make bench only=NAME`.

To add one: a module here with `NAME`, `WHERE` and `measure(workdir) -> list[Row]`, and a line in `__main__`.
"""
