"""The artifact store: immutable, content-addressed folders on a local path, with a manifest each."""
