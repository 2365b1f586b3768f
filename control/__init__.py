"""People: the control API, its store, the feed to sidecars, and the command line."""
