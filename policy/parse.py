"""A checked document to the typed resource that `compile` reads."""

from __future__ import annotations
