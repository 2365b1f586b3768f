"""Routes that nothing reaches: what is said of them is true of the compiled matches, and names what comes before."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.policy.match import HttpMatch
from fairlead.policy.resources import HTTPMatchRequest
from fairlead.policy.tables import Arrival, SimpleRequest
from fairlead.policy.validate_shadows import check_shadows
from fairlead.registry.schema import Findings


def told(routes: list[dict[str, Any]], kind: str = "http", gateways: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    found = Findings()
    check_shadows(found, kind, routes, list(gateways))
    return found.warnings


def uri(**match: str) -> dict[str, Any]:
    return {"uri": match}


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({}, {"uri": {"exact": "/a"}}),
        (uri(prefix="/"), uri(regex="/a.*")),
        (uri(prefix="/api"), uri(prefix="/api/v2")),
        (uri(prefix="/api"), uri(exact="/api/v2")),
        (uri(prefix="/api"), uri(regex="/api/[0-9]+")),
        (uri(exact="/a"), uri(exact="/a")),
        ({"uri": {"prefix": "/API"}, "ignoreUriCase": True}, uri(exact="/api/x")),
        ({"headers": {"X-A": {}}}, {"headers": {"x-a": {"exact": "1"}}}),
        ({"headers": {"x-a": {"prefix": "b"}}}, {"headers": {"x-a": {"exact": "beta"}}, "method": {"exact": "GET"}}),
        ({"queryParams": {"q": {"exact": "1"}}}, {"queryParams": {"q": {"exact": "1"}}, "uri": {"prefix": "/x"}}),
        ({"withoutHeaders": {"x": {}}}, {"withoutHeaders": {"x": {}}, "port": 80}),
        ({"sourceLabels": {"a": "b"}}, {"sourceLabels": {"a": "b", "c": "d"}, "sourceNamespace": "n"}),
        ({"gateways": ["g", "h"]}, {"gateways": ["g"]}),
        ({"port": 80}, {"port": 80}),
    ],
)
def test_an_earlier_route_that_takes_everything_of_a_later_is_named(earlier: Any, later: Any) -> None:
    (only,) = told([{"match": [earlier]}, {"match": [later]}], gateways=("g", "h", "mesh"))
    assert only[0] == "spec.http[1]" and only[1].startswith(
        "is never reached: spec.http[0].match[0] before it takes all"
    )


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (uri(prefix="/api/v2"), uri(prefix="/api")),
        (uri(prefix="/api"), uri(regex="/api|/b")),
        (uri(prefix="/ab"), uri(regex="/ab?c")),
        (uri(prefix="/api"), {"uri": {"prefix": "/api"}, "ignoreUriCase": True}),
        ({"headers": {"x-a": {"exact": "1"}}}, {"headers": {"x-a": {}}}),
        ({"withoutHeaders": {"x": {}}}, {}),
        ({"gateways": ["g"]}, {}),
        ({"port": 80}, {}),
        ({"sourceLabels": {"a": "b"}}, {"sourceLabels": {"a": "b"}, "gateways": ["g"]}),
    ],
)
def test_what_a_request_may_still_reach_is_not_spoken_of(earlier: Any, later: Any) -> None:
    assert told([{"match": [earlier]}, {"match": [later]}], gateways=("g", "mesh")) == []


def test_one_dead_block_of_several_is_told_by_itself_and_a_delegate_takes_nothing_for_certain() -> None:
    routes: list[dict[str, Any]] = [{"match": [uri(prefix="/a")]}, {"match": [uri(prefix="/a/b"), uri(prefix="/c")]}]
    assert [path for path, _ in told(routes)] == ["spec.http[1].match[0]"]
    assert told([{"delegate": {"name": "x"}}, {"match": [uri(prefix="/a")]}]) == []


def test_a_rule_with_very_many_routes_is_judged_in_bounded_time_and_a_catch_all_is_still_seen() -> None:
    many: list[dict[str, Any]] = [{"match": [{"headers": {"x": {"exact": str(number)}}}]} for number in range(300)]
    assert told(many) == []
    assert told([*many, {}, {"match": [{"headers": {"x": {"exact": "1000"}}}]}])[0][0] == "spec.http[301]"


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (uri(prefix="api"), "a path begins with '/'"),
        (uri(exact="/a?b=c"), "use queryParams"),
        ({"method": {"exact": "get"}}, "in capitals: GET"),
        ({"headers": {"x": {"exact": "a"}}, "withoutHeaders": {"X": {}}}, "header x stands in headers and in"),
        ({"gateways": ["edge"]}, "add it to spec.gateways"),
    ],
)
def test_conditions_that_nobody_meets_say_why(block: Any, says: str) -> None:
    ((path, message),) = told([{"match": [block]}])
    assert path == "spec.http[0].match[0]" and says in message


def test_tls_and_tcp_routes_are_looked_at_too() -> None:
    tls: list[dict[str, Any]] = [
        {"match": [{"sniHosts": ["a.x", "b.x"]}]},
        {"match": [{"sniHosts": ["A.x"], "port": 443}]},
    ]
    assert [path for path, _ in told(tls, "tls")] == ["spec.tls[1]"]
    assert told(list(reversed(tls)), "tls") == []
    assert [path for path, _ in told([{}, {"match": [{"port": 80}]}], "tcp")] == ["spec.tcp[1]"]
    subnet: list[dict[str, Any]] = [{"match": [{"destinationSubnets": ["10.0.0.0/8"]}]}, {"match": [{"port": 80}]}]
    assert told(subnet, "tcp") == []


# --- what is said is true -------------------------------------------------------------------------------------------

TEXT = st.sampled_from(["/", "/a", "/a/b", "/A", "/b"])
MATCH = st.one_of(
    st.builds(lambda text: {"exact": text}, TEXT), st.builds(lambda text: {"prefix": text}, TEXT),
    st.sampled_from([{"regex": ".*"}, {"regex": "/a.*"}, {"regex": "/a?/b"}]),
)  # fmt: skip
VALUE = st.sampled_from([{}, {"exact": "1"}, {"prefix": "1"}, {"regex": "1+"}, {"exact": "11"}])
BLOCK = st.fixed_dictionaries(
    {},
    optional={
        "uri": MATCH, "ignoreUriCase": st.booleans(), "method": st.sampled_from([{"exact": "GET"}, {"prefix": "P"}]),
        "headers": st.dictionaries(st.sampled_from(["x", "X-B"]), VALUE, max_size=2),
        "withoutHeaders": st.dictionaries(st.sampled_from(["x", "x-b"]), VALUE, max_size=1),
        "queryParams": st.dictionaries(st.just("q"), VALUE, max_size=1),
    },
)  # fmt: skip
REQUEST = st.builds(
    lambda path, method, headers, query: (path, method, headers, query),
    st.sampled_from(["/", "/a", "/a/b", "/A/b", "/b", "/ab"]), st.sampled_from(["GET", "POST"]),
    st.lists(st.tuples(st.sampled_from(["x", "x-b"]), st.sampled_from(["1", "11", ""])), max_size=2),
    st.sampled_from(["", "q=1", "q=11", "q"]),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(blocks=st.lists(BLOCK, min_size=2, max_size=4), requests=st.lists(REQUEST, min_size=1, max_size=12))
def test_no_request_reaches_first_what_is_said_to_be_unreachable(blocks: list[Any], requests: list[Any]) -> None:
    dead = {path.partition("[")[2].partition("]")[0] for path, _ in told([{"match": [one]} for one in blocks])}
    matches = [HttpMatch(msgspec.convert(block, HTTPMatchRequest)) for block in blocks]
    for path, method, headers, query in requests:
        request = SimpleRequest(
            Arrival("outbound"), method, "web", f"{path}?{query}" if query else path, headers, "http"
        )
        first = next((number for number, match in enumerate(matches) if match.holds(request, path, query)), None)
        assert str(first) not in dead, (blocks[first or 0], request.path)
