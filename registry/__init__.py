"""Facts: what exists and where, right now."""
