"""Patterns to namespaces, in order."""

from __future__ import annotations

import pytest

from fairlead.registry.namespace_map import NamespaceMap


def test_the_first_pattern_that_fits_counts() -> None:
    names = NamespaceMap(["pay-admin=ops", "pay-*=payments", "*-db=data"])
    assert [names.of(name) for name in ("Pay-Admin", "pay-web", "web-db", "web")] == [
        "ops",
        "payments",
        "data",
        "default",
    ]


@pytest.mark.parametrize("rule", ["payments", "=payments", "pay-*=", "pay-*=Pay Ments"])
def test_a_rule_that_says_nothing_is_named(rule: str) -> None:
    with pytest.raises(ValueError, match="expected PATTERN=NAMESPACE"):
        NamespaceMap([rule])
