"""Values that rules are made of: hosts, labels, ports, expressions; each check says what is wrong, or nothing."""

from __future__ import annotations
