"""Serving a model: start, check, ask, watch and stop endpoints, here, in containers, in a cluster or somebody else's.

To add a variant (what runs): a file in `variants/` with its options and the functions of `registry.Variant`, its name
and its options in `ServeConfig`, and a line in `registry.py`. To add a runtime (where it runs): a file in `runtimes/`
with the functions of `registry.Runtime` and a line in `registry.py`.
"""
