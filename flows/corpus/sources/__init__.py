"""The shapes that a field's text comes in, one module a shape.

To add one: write a module here with a config (`path`, `limit`), `files(source, field)` and
`read(source, templates, field) -> Found`; then give `Sources` a list of its configs and `READERS` a line.
"""
