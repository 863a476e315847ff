"""Immutable, content-addressed artifacts with manifests, on a folder (or any fsspec file system)."""
