"""Names, labels and ports as Kubernetes validates them, with the messages of its API server to the letter.

Source: k8s.io/apimachinery/pkg/util/validation. Each function gives everything that is wrong, and nothing where all is
well.
"""

from __future__ import annotations

import re

LABEL_MAX, SUBDOMAIN_MAX, PORT_NAME_MAX = 63, 253, 15
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = rf"({_QUALIFIED})?"
_MATCH = {text: re.compile(text) for text in (_LABEL, _SUBDOMAIN, _LABEL_1035, _QUALIFIED, _LABEL_VALUE)}
_ENDS = "and must start and end with an alphanumeric character"
_LABEL_SAYS = f"a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', {_ENDS}"
_SUBDOMAIN_SAYS = (
    f"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', {_ENDS}"
)
_LABEL_1035_SAYS = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character"
)
_QUALIFIED_SAYS = f"must consist of alphanumeric characters, '-', '_' or '.', {_ENDS}"
_LABEL_VALUE_SAYS = (
    f"a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', {_ENDS}"
)


def subdomain_faults(name: str) -> list[str]:
    """Of most objects' names."""
    return _faults(name, SUBDOMAIN_MAX, _SUBDOMAIN, _SUBDOMAIN_SAYS, "example.com")


def label_faults(name: str) -> list[str]:
    """Of a namespace's name."""
    faults = _faults(name, LABEL_MAX, _LABEL, _LABEL_SAYS, "my-name", "123-abc")
    if faults and _MATCH[_SUBDOMAIN].fullmatch(name) and not _MATCH[_LABEL].fullmatch(name):
        faults[-1] = "must not contain dots"
    return faults


def label_1035_faults(name: str) -> list[str]:
    """Of a Service's name."""
    return _faults(name, LABEL_MAX, _LABEL_1035, _LABEL_1035_SAYS, "my-name", "abc-123")


def qualified_name_faults(key: str) -> list[str]:
    """Of the key of a label or an annotation."""
    faults: list[str] = []
    prefix, slash, name = key.partition("/")
    examples = ("MyName", "my.name", "123-abc")
    if "/" in name:
        told = _regex(_QUALIFIED, _QUALIFIED_SAYS, *examples)
        return [f"a qualified name {told} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    if not slash:
        name = prefix
    elif not prefix:
        faults.append("prefix part must be non-empty")
    else:
        faults += [f"prefix part {fault}" for fault in subdomain_faults(prefix)]
    if not name:
        faults.append("name part must be non-empty")
    elif len(name) > LABEL_MAX:
        faults.append(f"name part {_too_long(LABEL_MAX)}")
    if not _MATCH[_QUALIFIED].fullmatch(name):
        faults.append(f"name part {_regex(_QUALIFIED, _QUALIFIED_SAYS, *examples)}")
    return faults


def label_value_faults(value: str) -> list[str]:
    return _faults(value, LABEL_MAX, _LABEL_VALUE, _LABEL_VALUE_SAYS, "MyValue", "my_value", "12345")


def port_name_faults(name: str) -> list[str]:
    faults = []
    if len(name) > PORT_NAME_MAX:
        faults.append(_too_long(PORT_NAME_MAX))
    if not re.fullmatch(r"[-a-z0-9]+", name):
        faults.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search(r"[a-z]", name):
        faults.append("must contain at least one letter (a-z)")
    if "--" in name:
        faults.append("must not contain consecutive hyphens")
    if name.startswith("-") or name.endswith("-"):
        faults.append("must not begin or end with a hyphen")
    return faults


def _faults(text: str, most: int, expression: str, says: str, *examples: str) -> list[str]:
    faults = [_too_long(most)] if len(text) > most else []
    return faults if _MATCH[expression].fullmatch(text) else [*faults, _regex(expression, says, *examples)]


def _too_long(most: int) -> str:
    return f"must be no more than {most} characters"


def _regex(expression: str, says: str, *examples: str) -> str:
    """The blanks are Kubernetes' own."""
    shown = " or ".join(f"'{one}', " for one in examples)
    return f"{says} (e.g. {shown}regex used for validation is '{expression}')"
