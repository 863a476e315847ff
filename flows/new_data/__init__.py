"""Whether the data of a deployment has changed: its files, on this machine or behind a URL, against the last look."""
