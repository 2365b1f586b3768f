"""Kubernetes' own messages for names, labels and ports, to the letter."""

from __future__ import annotations

import pytest

from fairlead.policy import validate_names as names

QUALIFIED = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
LABEL_1035 = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)


@pytest.mark.parametrize(
    ("key", "faults"),
    [
        ("app", []),
        ("app.kubernetes.io/name", []),
        ("", ["name part must be non-empty", f"name part {QUALIFIED}"]),
        ("a b", [f"name part {QUALIFIED}"]),
        ("/a", ["prefix part must be non-empty"]),
        ("A/a", [f"prefix part {SUBDOMAIN}"]),
        ("a" * 64, ["name part must be no more than 63 characters"]),
        ("a/b/c", [f"a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' "
                   "(e.g. 'example.com/MyName')"]),
    ],
)  # fmt: skip
def test_the_key_of_a_label(key: str, faults: list[str]) -> None:
    assert names.qualified_name_faults(key) == faults


@pytest.mark.parametrize(
    ("value", "faults"),
    [("", []), ("a_B.1", []), ("a b", [VALUE]), ("-" + "a" * 63, ["must be no more than 63 characters", VALUE])],
)
def test_the_value_of_a_label(value: str, faults: list[str]) -> None:
    assert names.label_value_faults(value) == faults


def test_names_of_objects_namespaces_and_services() -> None:
    assert names.subdomain_faults("a.b-1") == names.label_faults("a-1") == names.label_1035_faults("a-1") == []
    assert names.subdomain_faults("Bad_Name") == [SUBDOMAIN]
    assert names.subdomain_faults("a" * 254) == ["must be no more than 253 characters"]
    assert names.label_faults("a.b") == ["must not contain dots"]
    assert names.label_faults("a_b") == [LABEL]
    assert names.label_1035_faults("1a") == [LABEL_1035]


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("http", []),
        ("", ["must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
              "must contain at least one letter (a-z)"]),
        ("80", ["must contain at least one letter (a-z)"]),
        ("-a--B", ["must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                   "must not contain consecutive hyphens", "must not begin or end with a hyphen"]),
        ("abcdefghijklmnop", ["must be no more than 15 characters"]),
    ],
)  # fmt: skip
def test_the_name_of_a_port(name: str, faults: list[str]) -> None:
    assert names.port_name_faults(name) == faults
