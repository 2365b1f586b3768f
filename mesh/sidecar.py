"""Shell: a sidecar put together (being written now): engine, certificates, DNS, own ports, drain."""
