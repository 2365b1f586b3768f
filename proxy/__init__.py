"""Bytes: HTTP and TCP moved between peers."""
