"""Commands of a person's own as stages of a pipeline."""
