"""Prefect block types: what a person configures once."""
