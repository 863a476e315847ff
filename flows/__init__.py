"""Prefect flows from a field's own text to a fine-tuned, measured, gated and served LLM."""
