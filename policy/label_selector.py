"""Kubernetes label selectors. An empty selector matches everything; an absent one is the caller's to judge."""

from __future__ import annotations

from collections.abc import Mapping

from .resources import LabelSelector


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether all of matchLabels and matchExpressions hold. `NotIn` and `DoesNotExist` hold where the key is absent."""
    for key, value in selector.match_labels.items():
        if labels.get(key) != value:
            return False
    for expression in selector.match_expressions:
        own = labels.get(expression.key)
        if expression.operator == "In":
            if own is None or own not in expression.values:
                return False
        elif expression.operator == "NotIn":
            if own is not None and own in expression.values:
                return False
        elif expression.operator == "Exists":
            if own is None:
                return False
        elif expression.operator == "DoesNotExist":
            if own is not None:
                return False
        else:
            return False  # validation refuses other operators; an unreadable rule admits nobody
    return True
