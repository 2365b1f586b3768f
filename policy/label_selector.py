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


def wanted(selector: LabelSelector) -> str:
    """The selector in words."""
    found = [f"{key}={value}" for key, value in selector.match_labels.items()]
    for one in selector.match_expressions:
        values = f" ({', '.join(one.values)})" if one.values else ""
        found.append(f"{one.key} {one.operator}{values}")
    return ", ".join(found) or "any labels"


def seen(selector: LabelSelector, labels: Mapping[str, str]) -> str:
    """Of the labels those that the selector asks about."""
    keys = dict.fromkeys((*selector.match_labels, *(one.key for one in selector.match_expressions)))
    return ", ".join(f"{key}={labels[key]}" if key in labels else f"no label {key}" for key in keys) or "its labels"
