"""What work costs: seconds, GPU-hours, energy, tokens, FLOPs, money; and budgets."""
