"""Whether documents may be used: schema, meaning of each kind, and references between them; one report a document."""

from __future__ import annotations
