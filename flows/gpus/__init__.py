"""GPUs of this machine: how many there are, and leases of them by index and fraction."""
