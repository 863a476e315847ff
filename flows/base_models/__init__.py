"""Where a base model comes from: the Hub, a folder, a package that carries weights, or a tiny one made for tests.

To add a kind: write one file with `load(rest, folder)`, and one line in `resolve.KINDS`.
"""
