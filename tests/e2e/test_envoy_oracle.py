"""Where a request goes, and what of it arrives: Fairlead and Envoy say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from tests.e2e.oracle import Apps, Case, Oracle, cluster, differences, eventually, oracle, service
from tests.e2e.oracle_cases import DIFFERENT, DIRECT, TABLE


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    clusters = {"empty": cluster("empty", []), "dead": cluster("dead", [1])}
    more = yaml.safe_dump_all([*service("empty", []), *service("dead", [1])])
    with oracle(tmp_path_factory.mktemp("oracle"), TABLE, Apps("v1", "v2", "v3"), more, clusters) as made:
        yield made


@pytest.mark.parametrize(
    ("case", "text"), [pytest.param(case, text, id=f"{case.name}: {text}") for case in TABLE for text in case.requests]
)
def test_both_do_the_same_with_a_request(both: Oracle, case: Case, text: str) -> None:
    ours, theirs = both.both(case, text)
    told = differences(ours, theirs, text, own_body=case in DIRECT)
    if (case.name, text) in DIFFERENT:
        assert told, f"no difference any more: {DIFFERENT[case.name, text]}"
    else:
        assert not told, told


def test_every_difference_is_of_a_case() -> None:
    asked = {(case.name, text) for case in TABLE for text in case.requests}
    assert set(DIFFERENT) <= asked


# Besides: ours has the authority that the client asked for where a rule rewrites it, as it has the path; and what a
# client writes is escaped, so that no quote ends a field.
LOGGED = [
    ("uri exact", "GET /a?x=1 user-agent:u x-forwarded-for:1.2.3.4"),
    ("rewrite prefix", "POST /old/x body:hello"),
    ("what goes on", "GET / x-do:404"),
    ("what goes on", "HEAD / x-do:503"),
    ("no route", "GET /other"),
    ("redirect uri", "GET /old?x=1"),
    ("direct response", "GET /"),
    ("unknown service", "GET /"),
    ("no endpoints", "GET /"),
    ("nobody listens", "GET /"),
    ("abort", "GET /"),
    ("delay", "GET /"),
]
_LINE = re.compile(
    r'\[(?P<at>[^]]+)\] "(?P<line>.*?)" (?P<code>\d+) (?P<flags>\S+) (?P<received>\d+) (?P<sent>\d+) (?P<ms>\d+) '
    r'(?P<service>\S+) "(?P<for>.*?)" "(?P<agent>.*?)" "(?P<id>.*?)" "(?P<authority>.*?)" "(?P<host>.*?)"(?P<more>.*)'
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def _logged(both: Oracle, proxy: str, key: str) -> dict[str, str]:
    def lines() -> list[str]:
        text = (both.processes.folder / f"{proxy}.access").read_text()
        return [line for line in text.splitlines() if f'"{key}"' in line]

    eventually(f"a line of {key} in the log of {proxy}", lambda: lines()[:1])
    found = _LINE.fullmatch(lines()[0])
    assert found is not None, lines()[0]
    fields = found.groupdict()
    assert _TIME.fullmatch(fields.pop("at"))
    assert int(fields.pop("ms")) < 5000
    assert proxy == "fairlead" or not fields["more"]
    fields.pop("more")  # Fairlead's reason
    fields["service"] = fields["service"] if fields["service"] == "-" else "ms"
    if fields["flags"] not in ("-", "DI") or (fields["code"] == "404" and fields["host"] == "-"):
        fields.pop("sent")  # the text of our own answers is another one
    return fields


@pytest.mark.parametrize(("name", "text"), LOGGED)
def test_the_default_line_of_the_access_log_says_the_same(both: Oracle, name: str, text: str) -> None:
    [case] = [case for case in TABLE if case.name == name]
    lines = []
    for proxy in ("fairlead", "envoy"):
        key = f"{proxy}-{name}-{LOGGED.index((name, text))}".replace(" ", "-")
        both.ask(proxy, case, f"{text} x-request-id:{key}")
        lines.append(_logged(both, proxy, key) | {"id": ""})
    ours, theirs = lines
    assert ours == theirs
