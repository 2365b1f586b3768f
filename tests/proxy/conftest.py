"""Fixtures that several test files here share: an engine on real sockets, certificates of one authority."""

from tests.proxy.test_engine import certificates, mesh

__all__ = ["certificates", "mesh"]
