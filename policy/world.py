"""A world: the registry's snapshot and the rules in force, from documents; what cannot be used is left out and told."""

from __future__ import annotations
