"""Lines of the access log: formats, escapes, and what happens when nobody writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.tables import Arrival, Cluster, ClusterEndpoint, Decision
from fairlead.proxy import access_log
from fairlead.proxy.access_line import BATCH, HELD_MOST
from fairlead.proxy.access_log import AccessLog, FormatError, operator, text_formatter
from fairlead.proxy.cluster import LiveCluster
from fairlead.proxy.http1 import RequestParser
from fairlead.proxy.message import Outcome, RequestHead
from fairlead.registry.model import Endpoint

ISTIO_TEXT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% '
    '%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
"""What Istio's documentation has as its default."""


def head(path: str = "/a?b=c", *headers: str) -> RequestHead:
    parser = RequestParser()
    lines = "".join(f"{line}\r\n" for line in ("host: web", "user-agent: curl/8", "x-request-id: r-1", *headers))
    parser.feed(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
    found = parser.read_head()
    assert found is not None
    return found


def outcome(path: str = "/a?b=c", *headers: str) -> Outcome:
    """A request that went well, 12 ms of which the endpoint took 7."""
    made = Outcome()
    made.request = head(path, *headers)
    made.arrival = Arrival("outbound", source_ip="10.0.0.9", source_port=4321, sni="web.sni")
    endpoint = ClusterEndpoint("10.0.0.1", 8080, Endpoint("10.0.0.1", 8080))
    made.cluster = LiveCluster(Cluster("outbound|80||web.default", "web.default", 80, "", (endpoint,)), 0.0)
    made.endpoint = endpoint
    made.decision = Decision("route", route="first")
    made.status = 200
    made.details = "via_upstream"
    made.started_unix = 1_700_000_000.25
    made.started_at, made.sent_at, made.first_at, made.ended_at = 50.0, 50.002, 50.009, 50.012
    made.received_bytes, made.sent_bytes = 3, 400
    made.upstream_local, made.local_address = "10.0.0.2:5555", "127.0.0.1:15001"
    return made


def text(made: Outcome, form: str) -> str:
    return text_formatter(form)(made, 0.0)


def test_envoys_default_text_with_the_reason_behind() -> None:
    log = AccessLog()
    log.lines.add(outcome())
    assert log.lines.take().decode() == (
        '[2023-11-14T22:13:20.250Z] "GET /a?b=c HTTP/1.1" 200 - 3 400 12 7 "-" "curl/8" "r-1" "web" "10.0.0.1:8080" -\n'
    )


def test_istios_default_text_can_be_asked_for() -> None:
    assert text(outcome("/a", "x-forwarded-for: 1.2.3.4"), ISTIO_TEXT) == (
        '[2023-11-14T22:13:20.250Z] "GET /a HTTP/1.1" 200 - via_upstream - "-" 3 400 12 7 "1.2.3.4" "curl/8" "r-1" '
        '"web" "10.0.0.1:8080" outbound|80||web.default 10.0.0.2:5555 127.0.0.1:15001 10.0.0.9:4321 web.sni first\n'
    )


def test_json_has_istios_keys_and_the_reason() -> None:
    log = AccessLog("JSON")
    log.lines.add(outcome())
    found = json.loads(log.lines.take())
    assert " ".join(found) == (
        "start_time method path protocol response_code response_flags response_code_details "
        "connection_termination_details upstream_transport_failure_reason bytes_received bytes_sent duration "
        "upstream_service_time x_forwarded_for user_agent request_id authority upstream_host upstream_cluster "
        "upstream_local_address downstream_local_address downstream_remote_address requested_server_name route_name "
        "grpc_status reason policy why"
    )
    assert found["response_code"] == 200
    assert found["duration"] == 12
    assert found["x_forwarded_for"] is None


def test_a_failure_has_its_reason_flag_and_sentence() -> None:
    made = outcome()
    made.status, made.reason, made.flag, made.why = 503, "FL-CONNECT", "UF", "10.0.0.1:8080 refused 2 tries"
    assert (
        text(made, "%RESPONSE_CODE% %RESPONSE_FLAGS% %REASON% %UPSTREAM_TRANSPORT_FAILURE_REASON%")
        == "503 UF FL-CONNECT 10.0.0.1:8080 refused 2 tries\n"
    )


def test_a_rewritten_path_shows_as_it_was_asked_for() -> None:
    made = outcome("/new")
    made.original_path = "/old"
    assert text(made, "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%") == "/old\n"


def test_the_start_comes_from_the_difference_of_the_clocks_where_it_was_not_taken() -> None:
    made = outcome()
    made.started_unix = 0.0
    assert text_formatter("%START_TIME%")(made, 1_700_000_000.0 - 50.0) == "2023-11-14T22:13:20.000Z\n"


@pytest.mark.parametrize("kind", ["http", "tcp"])
@pytest.mark.parametrize("name", [*access_log.OPERATORS, "REQ(:METHOD)", "REQ(A?B)", "REQ(:SCHEME)", "RESP(SERVER)"])
def test_every_operator_can_do_with_an_outcome_that_knows_nothing(name: str, kind: str) -> None:
    made = Outcome()
    made.kind = kind
    assert text(made, f"<%{name}%>").startswith("<")
    assert json.loads(access_log.json_formatter()(made, 0.0))["upstream_host"] is None


def test_other_headers_can_be_asked_for_with_another_in_their_place() -> None:
    made = outcome("/", "x-tenant: 42")
    assert text(made, "%REQ(X-TENANT)% %REQ(X-NONE?X-TENANT)% %REQ(X-NONE)%") == "42 42 -\n"


@pytest.mark.parametrize("form", ["%NOPE%", "%REQ(A%", "100%", "%FILTER_STATE(a)%", "%start_time%"])
def test_a_format_that_cannot_be_read_is_refused_by_name(form: str) -> None:
    with pytest.raises(FormatError, match=r"access log format: .*(NOPE|REQ|%|FILTER|start)"):
        AccessLog("TEXT", form)


def test_an_unknown_operator_is_told_the_known_ones() -> None:
    with pytest.raises(FormatError, match="START_TIME"):
        operator("STRAT_TIME")


def test_two_percent_signs_are_one() -> None:
    assert text(outcome(), "100%% of %RESPONSE_CODE%") == "100% of 200\n"


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        ('a" 200 - "', r"a\x22 200 - \x22"),
        ("a\\b", r"a\x5cb"),
        ("a\tb", r"a\x09b"),
        ("a\x85b", r"a\x85b"),
        ("caf\xe9", "caf\xe9"),
    ],
)
def test_peers_cannot_end_a_field_or_a_line(agent: str, shown: str) -> None:
    assert text(outcome("/", f"x-a: {agent}"), '"%REQ(X-A)%"') == f'"{shown}"\n'


@given(st.text(st.characters(exclude_categories=[]), max_size=40))
def test_whatever_a_text_holds_it_makes_one_line_with_its_fields(value: str) -> None:
    made = outcome()
    made.request_id = made.authority = made.why = value
    log = AccessLog("TEXT", '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" end')
    log.lines.add(made)
    line = log.lines.take().decode()
    assert line.splitlines() == [line[:-1]]
    assert re.fullmatch(r'"[^"\\\x00-\x1f]*(\\x[^"]*)?" "[^"]*" end\n', line)
    log = AccessLog("JSON")
    log.lines.add(made)
    lines = log.lines.take().decode()
    assert lines.count("\n") == 1
    assert json.loads(lines)["why"] == (value.encode("utf-8", "replace").decode() or None)


def numbered(log: AccessLog, *numbers: int) -> None:
    for n in numbers:
        made = Outcome()
        made.sent_bytes = n
        log.lines.add(made)


def test_lines_come_oldest_first_and_are_made_a_batch_at_a_time_in_the_next_turn() -> None:
    soon: list[Callable[[], None]] = []
    log = AccessLog("TEXT", "%BYTES_SENT%", soon.append)
    numbered(log, *range(BATCH - 1))
    assert soon == []
    numbered(log, BATCH - 1, BATCH)
    assert len(soon) == 1
    soon.pop()()
    assert (log.lines.held, log.lines.waiting) == (BATCH + 1, [])
    numbered(log, BATCH + 1)
    assert log.lines.take() == b"".join(b"%d\n" % n for n in range(BATCH + 2))
    assert log.lines.take() == b""
    assert (log.written, soon) == (BATCH + 2, [])


def test_beyond_the_bound_outcomes_are_dropped_and_counted() -> None:
    log = AccessLog("TEXT", "%BYTES_SENT%")
    numbered(log, *range(HELD_MOST))
    log.lines.make()
    numbered(log, 1, 2)
    assert log.dropped == 2
    log.lines.take()
    log.lost += 1
    assert (log.written, log.dropped) == (HELD_MOST - 1, 3)
    numbered(log, 3)
    assert log.lines.take() == b"3\n"


def usual(made: Outcome) -> str:
    log = AccessLog()
    log.lines.add(made)
    return log.lines.take().decode()


@given(st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=20), st.booleans(), st.booleans())
def test_the_default_format_written_out_says_what_its_operators_say(value: str, rewritten: bool, named: bool) -> None:
    made = outcome('/a"b?c=\\d', f"x-forwarded-for: {value}")
    made.original_path = "/before" if rewritten else ""
    made.request_id = "r-2" if named else ""
    assert usual(made) == text(made, access_log.ENVOY_DEFAULT)
    made.sent_bytes, made.status = 5_000_000_000, 2000
    assert usual(made) == text(made, access_log.ENVOY_DEFAULT)
    made.reason, made.flag = "FL-RESET", "UC"
    assert usual(made) == text(made, access_log.ENVOY_DEFAULT)
