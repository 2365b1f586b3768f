"""Who sees a rule or a service: `exportTo`, label subsets, gateway references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def exported(export_to: Sequence[str], own_namespace: str, client_namespace: str) -> bool:
    """Whether an object of `own_namespace` is visible in `client_namespace`. Nothing written means everywhere."""
    if not export_to:
        return True
    for entry in export_to:
        if entry == "*" or entry == client_namespace or (entry == "." and own_namespace == client_namespace):
            return True
    return False


def labels_hold(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether all `wanted` labels are among `labels`; nothing wanted always holds."""
    return not wanted or all(labels.get(key) == value for key, value in wanted.items())


def gateway_name(reference: str, namespace: str) -> str:
    """A rule's gateway reference as `namespace/name`, or `mesh`."""
    if reference == "mesh" or "/" in reference:
        return reference
    return f"{namespace}/{reference}"
