"""Names: DNS questions answered from the registry."""
