"""One request's life as conversations: what goes to the endpoint, what comes back, and what if it does not."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.policy.format_operators import read
from fairlead.policy.path_normalization import MODES
from fairlead.policy.tables import (
    Decision,
    Destination,
    Fault,
    HeaderOps,
    LoadBalancer,
    Mirror,
    PoolLimits,
    RetryPolicy,
    Verdict,
)
from fairlead.proxy.host import UNMEASURED_S
from fairlead.proxy.outbox import Outbox
from tests.policy.test_path_normalization import SHAPES
from tests.proxy.fakes import World, cluster, lose, route

GET = b"GET /x HTTP/1.1\r\nHost: web\r\nX-Request-Id: r\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: web\r\nX-Request-Id: r\r\nContent-Length: 5\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def test_a_request_goes_to_the_endpoint_and_the_response_back() -> None:
    world = World()
    client = world.client(b"GET /x?y=1 HTTP/1.1\r\nHost: Web\r\nX-Case: Kept\r\n\r\n")
    upstream, wire = world.connect()
    assert wire.take() == (
        b"GET /x?y=1 HTTP/1.1\r\nHost: Web\r\nX-Case: Kept\r\nx-request-id: id-1\r\nx-forwarded-proto: http\r\n"
        b"x-envoy-attempt-count: 1\r\n\r\n"
    )
    world.time += 0.25
    upstream.data_received(b"HTTP/1.1 200 Fine\r\nX-Up: 1\r\nContent-Length: 2\r\n\r\nhi")
    assert client.transport.take() == (
        b"HTTP/1.1 200 Fine\r\nX-Up: 1\r\nContent-Length: 2\r\nx-envoy-upstream-service-time: 250\r\n\r\nhi"
    )
    (outcome,) = world.outcomes
    assert (outcome.status, outcome.reason, outcome.attempts, outcome.sent_bytes) == (200, "", 1, 2)
    assert outcome.details == "via_upstream"
    assert world.at_rest()
    assert world.pools["outbound|80||web"].live.hosts[0].idle == [upstream]


def test_the_connection_is_used_again_and_pipelined_requests_are_answered_in_order() -> None:
    world = World()
    client = world.client(GET + GET.replace(b"/x", b"/y"))
    upstream, wire = world.connect()
    assert wire.take().startswith(b"GET /x ")
    client.data_received(GET.replace(b"/x", b"/z"))
    assert client.transport.paused
    for path in (b"GET /y ", b"GET /z "):
        upstream.data_received(OK)
        assert wire.take().startswith(path)
    upstream.data_received(OK)
    assert client.transport.take().count(b"200 OK") == 3
    assert not client.transport.paused
    assert not world.dialed
    assert world.at_rest()


def test_many_pipelined_requests_answered_by_us_do_not_nest() -> None:
    world = World(decision=Decision("direct-response", status=200, body=b"hello"))
    client = world.client(GET * 3000)
    assert client.transport.take().count(b"hello") == 3000


def test_a_body_is_passed_on_as_it_comes_with_the_framing_it_came_with() -> None:
    world = World()
    client = world.client(POST + b"ab")
    _upstream, wire = world.connect()
    assert wire.take().endswith(b"Content-Length: 5\r\nx-forwarded-proto: http\r\nx-envoy-attempt-count: 1\r\n\r\nab")
    client.data_received(b"cde")
    assert wire.take() == b"cde"


def test_a_chunked_body_is_framed_anew_without_extensions_and_trailers_nobody_asked_for() -> None:
    world = World()
    head = b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n"
    client = world.client(head + b"2;a=b\r\nab\r\n")
    upstream, wire = world.connect()
    first = wire.take()
    assert b"\r\ntransfer-encoding: chunked\r\n" in first
    assert b"Transfer-Encoding" not in first
    assert first.endswith(b"\r\n\r\n2\r\nab\r\n")
    client.data_received(b"1\r\nc\r\n1\r\nd\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert wire.take() == b"2\r\ncd\r\n0\r\n\r\n"
    upstream.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n")
    assert client.transport.take().endswith(b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n")
    upstream.data_received(b"0\r\nT: 1\r\n\r\n")
    assert client.transport.take() == b"0\r\n\r\n"
    assert world.at_rest()


def test_trailers_reach_a_client_that_asked_for_them() -> None:
    world = World()
    client = world.client(b"GET / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
    upstream, _wire = world.connect()
    upstream.data_received(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n"
    )
    assert client.transport.take().endswith(b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")


def test_a_response_that_ends_with_its_connection_is_chunked_for_1_1_and_closes_1_0() -> None:
    for version, end in ((b"1.1", b"\r\n2\r\nhi\r\n0\r\n\r\n"), (b"1.0", b"\r\nhi")):
        world = World()
        client = world.client(b"GET / HTTP/%b\r\nHost: web\r\nConnection: keep-alive\r\n\r\n" % version)
        upstream, wire = world.connect()
        upstream.data_received(b"HTTP/1.0 200 OK\r\n\r\nhi")
        upstream.eof_received()
        lose(wire)
        assert client.transport.take().endswith(end)
        assert client.transport.closed is (version == b"1.0")
        assert world.at_rest()
        assert world.outcomes[0].reason == ""


def test_head_has_no_body_and_the_connection_is_kept() -> None:
    world = World()
    client = world.client(GET.replace(b"GET", b"HEAD"))
    upstream, _wire = world.connect()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    assert b"Content-Length: 500" in client.transport.take()
    assert upstream.usable
    assert world.at_rest()


def test_surplus_octets_never_reach_the_next_client() -> None:
    world = World()
    world.client(GET)
    upstream, wire = world.connect()
    upstream.data_received(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert wire.aborted
    assert not world.pools["outbound|80||web"].live.hosts[0].idle
    world = World()
    world.client(GET)
    upstream, wire = world.connect()
    upstream.data_received(OK)
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")  # while idle
    assert wire.aborted
    assert not world.pools["outbound|80||web"].live.hosts[0].idle


def test_an_answer_that_comes_before_its_request_is_written_is_none() -> None:
    world = World()
    client = world.client(GET)
    upstream, wire = world.connect()
    upstream.data_received(OK)
    client.transport.take()
    soon: list[Any] = []
    upstream.outbox = Outbox(soon.append)
    wire.take()
    client.data_received(GET)  # on the connection that was kept; it will be written at the end of this turn
    assert not wire.take()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert client.transport.take().startswith(b"HTTP/1.1 502 ")
    assert wire.aborted
    assert world.outcomes[1].reason == "FL-UP-MALFORMED"
    assert "before it was asked" in world.outcomes[1].why
    for callback in soon:
        callback()
    assert not wire.take()
    assert world.at_rest()


def test_hop_by_hop_headers_stay_on_their_hop_and_forged_ones_are_dropped() -> None:
    world = World()
    client = world.client(
        b"GET / HTTP/1.1\r\nHost: web\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 3\r\n"
        b"X-Forwarded-Client-Cert: By=me\r\nx-envoy-attempt-count: 7\r\nProxy-Connection: x\r\nLast: 1\r\n\r\n"
    )
    upstream, wire = world.connect()
    sent = wire.take()
    assert sent == (
        b"GET / HTTP/1.1\r\nHost: web\r\nLast: 1\r\nx-request-id: id-1\r\nx-forwarded-proto: http\r\n"
        b"x-envoy-attempt-count: 1\r\n\r\n"
    )
    upstream.data_received(
        b"HTTP/1.1 200 OK\r\nConnection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n"
        b"x-envoy-upstream-service-time: 9\r\nServer: s\r\n\r\n"
    )
    assert client.transport.take() == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nServer: s\r\nx-envoy-upstream-service-time: 0\r\n\r\n"
    )


def test_inbound_says_who_the_peer_is_and_believes_nobody_else() -> None:
    forged = GET.replace(b"X-Request-Id", b"X-Forwarded-Client-Cert: URI=spiffe://x/ns/a/sa/admin\r\nX-Request-Id")
    world = World()
    world.client(forged, "inbound", "spiffe://cluster.local/ns/default/sa/shop")
    _upstream, wire = world.connect()
    sent = wire.take()
    assert b"admin" not in sent
    assert (
        b"\r\nx-forwarded-client-cert: By=spiffe://cluster.local/ns/default/sa/app;"
        b"URI=spiffe://cluster.local/ns/default/sa/shop\r\n"
    ) in sent
    world = World()
    world.client(forged, "inbound")
    _upstream, wire = world.connect()
    assert b"client-cert" not in wire.take().lower()


def test_policys_changes_of_headers_path_and_host_are_applied() -> None:
    ops = HeaderOps(set=(("x-set", "1"),), add=(("x-add", "2"),), remove=("x-old",))
    back = HeaderOps(set=(("x-up", "set"),), add=(("x-add", "a\r\nb"),), remove=("server",))
    destination = Destination("outbound|80||web", "web", 80, request_headers=ops, response_headers=back)
    world = World(decision=route(destinations=(destination,), path="/new?z", authority="other:8", timeout_s=3.0))
    client = world.client(b"GET /old HTTP/1.1\r\nHost: web\r\nX-Old: 1\r\nx-set: 0\r\nX-Request-Id: r\r\n\r\n")
    upstream, wire = world.connect()
    assert wire.take() == (
        b"GET /new?z HTTP/1.1\r\nHost: other:8\r\nX-Request-Id: r\r\n"
        b"x-forwarded-proto: http\r\nx-envoy-attempt-count: 1\r\nx-envoy-expected-rq-timeout-ms: 3000\r\n"
        b"x-envoy-original-path: /old\r\nx-envoy-original-host: web\r\nx-set: 1\r\nx-add: 2\r\n\r\n"
    )
    upstream.data_received(b"HTTP/1.1 200 OK\r\nServer: s\r\nX-Up: old\r\nContent-Length: 0\r\n\r\n")
    assert client.transport.take() == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-envoy-upstream-service-time: 0\r\nx-up: set\r\nx-add: a  b\r\n\r\n"
    )
    assert world.outcomes[0].original_path == "/old"


def headed(request: HeaderOps | None = None, response: HeaderOps | None = None) -> Decision:
    """A route to one destination with header operations."""
    destination = Destination("outbound|80||web", "web", 80, request_headers=request, response_headers=response)
    return route(destinations=(destination,), response_headers=response)


def test_what_a_rule_sets_or_removes_is_the_last_word_on_what_the_proxy_adds_too() -> None:
    ops = HeaderOps(set=(("x-envoy-attempt-count", "9"), ("x-forwarded-proto", "https")), remove=("x-request-id",))
    back = HeaderOps(set=(("x-envoy-upstream-service-time", "7"), ("date", "never")), remove=("via",))
    world = World(decision=headed(ops, back))
    world.date = b"date: now\r\n"
    client = world.client(GET)
    upstream, wire = world.connect()
    sent = wire.take()
    assert b"x-request-id" not in sent
    assert sent.count(b"x-envoy-attempt-count: ") == sent.count(b"x-envoy-attempt-count: 9\r\n") == 1
    assert sent.count(b"x-forwarded-proto: ") == sent.count(b"x-forwarded-proto: https\r\n") == 1
    upstream.data_received(OK)
    got = client.transport.take()
    assert got.count(b"x-envoy-upstream-service-time: ") == got.count(b"x-envoy-upstream-service-time: 7\r\n") == 1
    assert got.count(b"date: ") == got.count(b"date: never\r\n") == 1


def test_header_operations_hold_for_redirects_and_direct_responses() -> None:
    ops = HeaderOps(set=(("x-set", "1"),), remove=("location", "date"))
    decision = Decision("redirect", status=302, location="/there", response_headers=ops)
    world = World(decision=decision)
    world.date = b"date: now\r\n"
    got = world.client(GET).transport.take()
    assert b"location" not in got
    assert b"x-set: 1\r\n" in got and b"date: now\r\n" in got
    typed = HeaderOps(set=(("content-type", "application/json"),))
    for ops_, kind in ((None, b"text/plain"), (typed, b"application/json")):
        world = World(decision=Decision("direct-response", status=200, body=b"{}", response_headers=ops_))
        got = world.client(GET).transport.take().lower()
        assert got.count(b"content-type: ") == got.count(b"content-type: " + kind + b"\r\n") == 1


def test_format_operators_in_header_operations_get_their_values() -> None:
    request = HeaderOps(
        set=(("x-peer", read("%DOWNSTREAM_REMOTE_ADDRESS%")), ("x-old", read("%REQ(X-NONE)%"))),
        add=(("x-to", read("[%UPSTREAM_HOST%]")), ("x-plain", "50%")),
    )
    response = HeaderOps(set=(("x-code", read("%RESPONSE_CODE% %RESP(X-APP)%")),))
    world = World(decision=headed(request, response))
    for number in range(2):  # values are each request's own
        client = world.client(b"GET / HTTP/1.1\r\nHost: web\r\nX-Old: stays\r\n\r\n")
        upstream, wire = world.connect()
        sent = wire.take()
        for line in (b"x-peer: 10.0.0.9:4711", b"X-Old: stays", b"x-to: [10.0.0.1:8080]", b"x-plain: 50%"):
            assert sent.count(line + b"\r\n") == 1, sent
        upstream.data_received(
            b"HTTP/1.1 20%d OK\r\nX-App: a\r\nContent-Length: 0\r\nconnection: close\r\n\r\n" % number
        )
        assert b"x-code: 20%d a\r\n" % number in client.transport.take()


def test_a_gateway_gives_a_strangers_request_an_identifier_of_its_own_and_a_sidecar_keeps_its_apps() -> None:
    asked = b"GET / HTTP/1.1\r\nHost: web\r\nX-Request-Id: theirs\r\n\r\n"
    peer = "spiffe://cluster.local/ns/default/sa/shop"
    for listener, identity, proxies, kept in (
        ("gateway", "", 0, False),
        ("gateway", "", 1, True),  # the proxy before it may say so
        ("gateway", peer, 0, True),
        ("outbound", "", 0, True),
        ("inbound", "", 0, True),
        ("inbound", peer, 0, True),
    ):
        world = World(trusted_proxies=proxies)
        world.client(asked, listener, identity)
        sent = world.connect()[1].take().lower()
        assert sent.count(b"x-request-id: ") == 1
        assert (b"x-request-id: theirs\r\n" in sent) is kept, (listener, identity, proxies)


def test_an_endpoint_is_told_how_long_its_try_may_take() -> None:
    policy = RetryPolicy(2, frozenset({"5xx"}), per_try_timeout_s=0.375, backoff_s=0.0)
    world = World(decision=route(retries=policy, timeout_s=0.5))
    world.client(GET)
    assert b"x-envoy-expected-rq-timeout-ms: 375\r\n" in world.connect()[1].take()
    world.pass_time(0.375)
    assert b"x-envoy-expected-rq-timeout-ms: 125\r\n" in world.connect()[1].take()
    world = World(decision=route(retries=policy))
    world.client(GET)
    assert b"x-envoy-expected-rq-timeout-ms: 375\r\n" in world.connect()[1].take()


def test_the_path_is_normalised_before_policy_sees_it_and_forwarded_as_policy_saw_it() -> None:
    world = World()
    world.client(b"GET /a//b/../c%41 HTTP/1.1\r\nHost: web\r\n\r\n")
    assert world.requests[0].path == "/a/cA"
    _upstream, wire = world.connect()
    assert wire.take().startswith(b"GET /a/cA HTTP/1.1\r\n")
    client = world.client(b"GET /a%00b HTTP/1.1\r\nHost: web\r\n\r\n")
    assert client.transport.take().startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("mode", MODES)
def test_whatever_the_path_policy_and_endpoint_see_the_same_or_neither_sees_it(mode: str) -> None:
    for target in SHAPES:
        if not target.startswith("/"):
            continue
        for form in (target, "http://web" + target):
            world = World(decision=route(mirrors=(Mirror("outbound|80||web", "web", 80),)))
            world.normalization = mode
            client = world.client(f"GET {form} HTTP/1.1\r\nHost: web\r\n\r\n".encode())
            expected = SHAPES[target][MODES.index(mode)]
            if expected is None:
                answer = client.transport.take()
                assert answer.startswith(b"HTTP/1.1 400 "), target
                assert b"FL-MALFORMED" in answer
                assert not world.requests
                assert not world.dialed
                continue
            assert [request.path for request in world.requests] == [expected]
            for _ in range(2):  # the endpoint's, and the mirror's
                _upstream, wire = world.connect()
                assert wire.take().partition(b"\r\n")[0].decode() == f"GET {expected} HTTP/1.1"


@pytest.mark.parametrize(
    ("decision", "status", "code"),
    [
        (Decision("not-found", status=404, reason="FL-NO-ROUTE", why="No route for web."), 404, "FL-NO-ROUTE"),
        (Decision("denied", status=403, reason="FL-DENIED", why="NetworkPolicy default/lock."), 403, "FL-DENIED"),
        (Decision("unavailable", reason="FL-NO-CLUSTER", why="Unknown subset."), 503, "FL-NO-CLUSTER"),
        (route("unknown"), 503, "FL-NO-CLUSTER"),
    ],
)
def test_our_own_answers_have_a_code_and_a_sentence(decision: Decision, status: int, code: str) -> None:
    world = World(decision=decision)
    client = world.client(GET + GET)
    answer = client.transport.take()
    assert answer.count(b"HTTP/1.1 %d " % status) == 2
    assert b"x-fairlead-reason: " + code.encode() in answer
    assert not client.transport.closed
    outcome = world.outcomes[0]
    assert (outcome.status, outcome.reason) == (status, code)
    assert outcome.why.endswith(".")


def test_redirects_and_direct_responses_are_answered_here() -> None:
    ops = HeaderOps(set=(("x-a", "1"),))
    world = World(decision=Decision("redirect", status=308, location="http://other/x", response_headers=ops))
    assert world.client(GET).transport.take() == (
        b"HTTP/1.1 308 Permanent Redirect\r\ncontent-length: 0\r\nlocation: http://other/x\r\nx-a: 1\r\n\r\n"
    )
    world = World(decision=Decision("direct-response", status=503, body=b"down"))
    assert world.client(GET).transport.take().endswith(b"\r\n\r\ndown")


def test_an_endpoint_without_permission_is_not_connected() -> None:
    verdict = Verdict(False, "NetworkPolicy default/lock egress rule 1", "NetworkPolicy default/lock allows no egress.")
    world = World(cluster("10.0.0.1", egress=verdict))
    client = world.client(GET)
    assert not world.dialed
    answer = client.transport.take()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"NetworkPolicy default/lock" in answer
    assert world.at_rest()


def test_no_endpoint_is_a_503_with_its_reason() -> None:
    world = World(cluster())
    assert b"x-fairlead-reason: FL-NO-HEALTHY" in world.client(GET).transport.take()


def test_a_failed_connection_is_tried_at_another_endpoint() -> None:
    world = World(cluster("10.0.0.1", "10.0.0.2"))
    client = world.client(POST + b"hello")
    world.refuse()
    assert not client.transport.take()
    world.pass_time(0.1)
    upstream, wire = world.connect()
    assert upstream.host.endpoint.address == "10.0.0.2"
    sent = wire.take()
    assert sent.endswith(b"hello")
    assert b"x-envoy-attempt-count: 2" in sent
    upstream.data_received(OK)
    assert client.transport.take().startswith(b"HTTP/1.1 200")
    live: Any = world.pools["outbound|80||web"].live  # a fakes.Live, which keeps what it is told
    assert live.reports == [("10.0.0.1", 0, True), ("10.0.0.2", 200, False)]
    assert world.at_rest()


@pytest.mark.parametrize(("remote", "third"), [(True, "10.0.0.4"), (False, "10.0.0.3")])
def test_the_third_try_goes_further_away_where_the_route_says_so(remote: bool, third: str) -> None:
    retries = RetryPolicy(2, frozenset({"connect-failure"}), remote=remote)
    made = cluster("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", priorities=(0, 0, 0, 1))
    world = World(made, decision=route(retries=retries))
    client = world.client(GET)
    tried = []
    for _ in range(2):
        tried.append(world.dialed[0][2].endpoint.address)
        world.refuse()
        world.pass_time(0.3)
    upstream, _ = world.connect()
    assert [*tried, upstream.host.endpoint.address] == ["10.0.0.1", "10.0.0.2", third]
    upstream.data_received(OK)
    assert client.transport.take().startswith(b"HTTP/1.1 200")
    assert world.at_rest()


def test_latencies_are_told_to_clusters_that_measure_them_and_to_no_others() -> None:
    for kind, expected in (("peak_ewma", 0.25), ("least_request", UNMEASURED_S)):
        world = World(cluster("10.0.0.1", balancer=LoadBalancer(kind)))
        world.client(GET)
        upstream, _ = world.connect()
        world.pass_time(0.25)
        upstream.data_received(OK)
        assert upstream.host.latency_s == expected


def test_tries_are_used_up_and_then_answered_with_the_last_reason() -> None:
    world = World(cluster("10.0.0.1"))
    client = world.client(GET)
    for _ in range(3):
        world.refuse()
        world.pass_time(0.3)
    assert not world.dialed
    answer = client.transport.take()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"FL-CONNECT" in answer
    assert b"connection refused" in answer
    assert world.outcomes[0].flag == "URX,UF"
    assert world.at_rest()


def test_without_retries_the_first_failure_is_the_answer() -> None:
    world = World(decision=route(retries=None))
    client = world.client(GET)
    world.refuse()
    assert b"FL-CONNECT" in client.transport.take()
    assert world.outcomes[0].flag == "UF"


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_what_may_have_been_acted_upon_is_not_sent_again_unless_the_user_says_so(method: bytes) -> None:
    for conditions, again in ((frozenset({"connect-failure"}), False), (frozenset({"reset"}), True)):
        world = World(decision=route(retries=RetryPolicy(2, conditions)))
        client = world.client(GET.replace(b"GET", method))
        _upstream, wire = world.connect()
        lose(wire)
        world.pass_time(0.3)
        assert bool(world.dialed) is again
        assert (b"FL-RESET" in client.transport.take()) is not again


def test_a_kept_connection_that_ends_under_a_request_costs_only_who_could_not_be_sent_again() -> None:
    for method, again in ((b"GET", True), (b"POST", False)):
        world = World()
        client = world.client(GET + GET.replace(b"GET", method))
        upstream, wire = world.connect()
        upstream.data_received(OK)
        client.transport.take()
        lose(wire)
        assert bool(world.dialed) is again
        assert (b"FL-RESET" in client.transport.take()) is not again
        if again:
            upstream, wire = world.connect()
            upstream.data_received(OK)
            assert client.transport.take().startswith(b"HTTP/1.1 200")
        assert world.at_rest()


def test_statuses_are_retried_as_the_policy_lists_them_and_the_last_answer_is_passed_on() -> None:
    world = World(decision=route(retries=RetryPolicy(1, frozenset({"5xx"}))))
    client = world.client(POST + b"hello")
    upstream, _wire = world.connect()
    upstream.data_received(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    world.pass_time(0.1)
    assert upstream.exchange is not None  # the connection was good, and is used again
    upstream.data_received(b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\n")
    assert client.transport.take().startswith(b"HTTP/1.1 500 No")
    upstream.data_received(b"bad")
    assert client.transport.take() == b"bad"
    outcome = world.outcomes[0]
    assert (outcome.status, outcome.attempts, outcome.flag) == (500, 2, "URX")
    assert world.at_rest()


def test_concurrent_retries_are_limited() -> None:
    world = World(cluster("10.0.0.1", limits=PoolLimits(max_retries=1)))
    first, second = world.client(GET), world.client(GET)
    world.refuse()
    world.refuse()
    assert not first.transport.take()
    assert b"FL-CONNECT" in second.transport.take()


def test_a_body_too_long_to_keep_is_sent_once() -> None:
    world = World(replay_bytes=3, decision=route(retries=RetryPolicy(2, frozenset({"5xx"}))))
    client = world.client(POST + b"he")
    upstream, _wire = world.connect()
    client.data_received(b"llo")
    upstream.data_received(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    assert client.transport.take().startswith(b"HTTP/1.1 500 No")


def test_the_routes_timeout_begins_when_the_request_is_complete() -> None:
    world = World(decision=route(timeout_s=2.0))
    client = world.client(POST + b"he")
    upstream, wire = world.connect()
    world.pass_time(5)
    client.data_received(b"llo")
    world.pass_time(1.9)
    assert not client.transport.take()
    world.pass_time(0.2)
    answer = client.transport.take()
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"FL-TIMEOUT" in answer
    assert b"2 s" in answer
    assert wire.aborted
    assert upstream.exchange is None
    assert world.outcomes[0].flag == "UT"
    assert world.at_rest()


def test_a_response_that_is_cut_off_is_cut_off_for_the_client_too() -> None:
    world = World(decision=route(timeout_s=2.0))
    client = world.client(GET)
    upstream, _wire = world.connect()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    world.pass_time(2.1)
    assert client.transport.aborted
    assert world.outcomes[0].reason == "FL-TIMEOUT"
    world = World()
    client = world.client(GET)
    upstream, wire = world.connect()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    lose(wire)
    assert client.transport.aborted
    assert world.outcomes[0].reason == "FL-RESET"
    assert world.at_rest()


def test_a_try_that_takes_too_long_is_tried_again_only_if_the_policy_lists_it() -> None:
    for conditions, again in ((frozenset({"connect-failure"}), False), (frozenset({"5xx"}), True)):
        world = World(decision=route(retries=RetryPolicy(1, conditions, per_try_timeout_s=0.5)))
        client = world.client(GET)
        _upstream, wire = world.connect()
        world.pass_time(0.6)
        assert wire.aborted
        assert bool(world.dialed) is again
        if again:
            world.connect()
            world.pass_time(0.6)
        answer = client.transport.take()
        assert b"504" in answer
        assert b"perTryTimeout 0.5 s" in answer
        assert world.at_rest()


def test_an_endpoint_that_talks_nonsense_is_a_502() -> None:
    world = World()
    client = world.client(GET)
    upstream, wire = world.connect()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")
    answer = client.transport.take()
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"FL-UP-MALFORMED" in answer
    assert wire.aborted
    assert world.at_rest()


def test_limits_answer_at_once_with_their_numbers() -> None:
    world = World(cluster("10.0.0.1", limits=PoolLimits(max_requests=1)))
    world.client(GET)
    answer = world.client(GET).transport.take()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"FL-OVERFLOW" in answer
    assert b"x-envoy-overloaded: true" in answer
    assert b"http2MaxRequests is 1" in answer
    world = World(cluster("10.0.0.1", limits=PoolLimits(max_connections=1, max_pending=1)))
    world.client(GET)
    _upstream, _wire = world.connect()
    waiting = world.client(GET)
    refused = world.client(GET)
    assert not world.dialed
    assert b"http1MaxPendingRequests is 1" in refused.transport.take()
    assert not waiting.transport.take()


def test_who_waits_gets_the_next_free_connection() -> None:
    world = World(cluster("10.0.0.1", limits=PoolLimits(max_connections=1)))
    world.client(GET)
    upstream, wire = world.connect()
    second = world.client(GET)
    assert not world.dialed
    wire.take()
    upstream.data_received(OK)
    assert wire.take().startswith(b"GET ")
    upstream.data_received(OK)
    assert second.transport.take().startswith(b"HTTP/1.1 200")
    assert world.at_rest()


def test_who_waits_and_leaves_is_forgotten() -> None:
    world = World(cluster("10.0.0.1", limits=PoolLimits(max_connections=1)))
    world.client(GET)
    upstream, _wire = world.connect()
    second = world.client(GET)
    lose(second.transport)
    upstream.data_received(OK)
    assert world.at_rest()
    assert world.outcomes[0].reason == "FL-CLIENT-GONE"


def test_a_connection_carries_no_more_requests_than_its_limit() -> None:
    world = World(cluster("10.0.0.1", limits=PoolLimits(max_requests_per_connection=2)))
    client = world.client(GET)
    upstream, wire = world.connect()
    assert b"connection: close" not in wire.take()
    upstream.data_received(OK)
    client.data_received(GET)
    assert b"\r\nconnection: close\r\n" in wire.take()
    upstream.data_received(OK)
    assert wire.aborted


def test_faults_delay_and_abort() -> None:
    fault = Fault(delay_s=3.0, delay_percentage=60, abort_status=418, abort_percentage=60)
    world = World(decision=route(fault=fault))
    client = world.client(GET)
    world.pass_time(2.9)
    assert not client.transport.take()
    world.pass_time(0.2)
    assert client.transport.take().startswith(b"HTTP/1.1 418 ")
    outcome = world.outcomes[0]
    assert (outcome.reason, outcome.flag) == ("FL-FAULT", "DI,FI")
    world = World(decision=route(fault=Fault(abort_status=418, abort_percentage=40)))
    world.client(GET)
    assert len(world.dialed) == 1


def test_mirrors_get_a_copy_and_change_nothing() -> None:
    world = World(
        cluster("10.0.0.1"),
        cluster("10.0.0.2", name="m"),
        decision=route(mirrors=(Mirror("m", "m", 80, percentage=60),)),
    )
    client = world.client(POST + b"he")
    world.connect()[1].take()
    assert not world.dialed
    client.data_received(b"llo")
    mirror, wire = world.connect()
    sent = wire.take()
    assert sent.endswith(b"hello")
    for name in (b"x-request-id", b"x-forwarded-proto", b"x-envoy-attempt-count"):
        assert sent.lower().count(name + b": ") == 1, name
    mirror.data_received(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    assert not client.transport.take()
    assert world.mirrors == 0


def test_a_mirror_that_fails_is_nobodys_business() -> None:
    world = World(cluster("10.0.0.1"), cluster("10.0.0.2", name="m"), decision=route(mirrors=(Mirror("m", "m", 80),)))
    client = world.client(GET)
    upstream, _wire = world.connect()
    world.refuse()
    upstream.data_received(OK)
    assert client.transport.take().startswith(b"HTTP/1.1 200")
    assert world.at_rest()


def test_a_cookie_is_made_where_the_balancer_wants_one() -> None:
    balancer = LoadBalancer("ring_hash", "cookie", "sticky", cookie_ttl_s=60.0, cookie_path="/a")
    world = World(cluster("10.0.0.1", balancer=balancer))
    client = world.client(GET)
    upstream, _wire = world.connect()
    upstream.data_received(OK)
    assert b"set-cookie: sticky=id-1; Max-Age=60; Path=/a; HttpOnly\r\n" in client.transport.take()


def test_interim_answers_are_passed_on() -> None:
    world = World()
    client = world.client(POST.replace(b"X-Req", b"Expect: 100-continue\r\nX-Req"))
    upstream, wire = world.connect()
    assert b"Expect: 100-continue" in wire.take()
    upstream.data_received(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.transport.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.data_received(b"hello")
    assert wire.take() == b"hello"
    upstream.data_received(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)
    assert client.transport.take().startswith(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK")


def test_an_answer_before_the_requests_end_closes_both_connections() -> None:
    world = World()
    client = world.client(POST + b"he")
    upstream, wire = world.connect()
    upstream.data_received(b"HTTP/1.1 413 Too much\r\nContent-Length: 0\r\n\r\n")
    assert wire.aborted
    answer = client.transport.take()
    assert b"connection: close" in answer
    assert client.transport.eof
    assert not client.transport.closed
    client.data_received(b"GET /smuggled HTTP/1.1\r\n\r\n")  # thrown away
    assert len(world.requests) == 1
    world.pass_time(3)
    assert client.transport.aborted
    assert world.at_rest()


UPGRADE = b"GET /ws HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_a_websocket_becomes_a_pair_of_streams() -> None:
    world = World()
    client = world.client(UPGRADE)
    upstream, wire = world.connect()
    sent = wire.take()
    assert b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n" in sent
    upstream.data_received(SWITCH + b"\x81\x01a")
    assert client.transport.take().endswith(b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x81\x01a")
    client.transport.protocol.data_received(b"from client")
    wire.protocol.data_received(b"from server")
    assert wire.take() == b"from client"
    assert client.transport.take() == b"from server"
    lose(wire)
    assert client.transport.closed
    lose(client.transport)
    (outcome,) = world.outcomes
    assert (outcome.status, outcome.received_bytes, outcome.sent_bytes) == (101, 11, 14)
    assert world.at_rest()
    assert world.pools["outbound|80||web"].live.connections == 0
    assert not world.connections
    assert not world.relays


def test_a_tunnel_opens_only_after_101_and_only_when_asked_for() -> None:
    world = World()
    client = world.client(UPGRADE)
    upstream, _wire = world.connect()
    upstream.data_received(OK)
    assert client.transport.take().startswith(b"HTTP/1.1 200 OK")
    client.data_received(GET)
    assert len(world.requests) == 1  # what came behind it may have been of the other protocol
    world = World()
    client = world.client(GET)
    upstream, _wire = world.connect()
    upstream.data_received(SWITCH)
    assert client.transport.take().startswith(b"HTTP/1.1 502 ")
    world = World()
    world.client(UPGRADE.replace(b"websocket", b"h2c"))
    assert b"pgrade" not in world.connect()[1].take()


def test_a_full_connection_stops_the_other_side() -> None:
    world = World()
    client = world.client(POST + b"he")
    upstream, wire = world.connect()
    upstream.pause_writing()
    assert client.transport.paused
    upstream.resume_writing()
    assert not client.transport.paused
    client.data_received(b"llo")
    client.pause_writing()
    assert wire.paused
    client.resume_writing()
    assert not wire.paused


def test_a_body_before_its_endpoint_is_connected_is_held_within_a_limit() -> None:
    world = World(hold_bytes=3)
    client = world.client(POST + b"he")
    client.data_received(b"ll")
    assert client.transport.paused
    _upstream, wire = world.connect()
    assert wire.take().endswith(b"\r\n\r\nhell")
    assert not client.transport.paused


@pytest.mark.parametrize("stage", ["waiting", "sent", "head", "body"])
def test_a_client_that_leaves_takes_its_exchange_with_it(stage: str) -> None:
    world = World()
    client = world.client(POST + b"he" if stage == "body" else GET)
    wire: Any = None
    if stage != "waiting":
        upstream, wire = world.connect()
        if stage == "head":
            upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    lose(client.transport, ConnectionResetError())
    assert world.at_rest()
    (outcome,) = world.outcomes
    assert (outcome.reason, outcome.flag) == ("FL-CLIENT-GONE", "DC")
    if wire is not None:
        assert wire.aborted
    assert not world.connections


def test_no_requests_end_leaves_timers_or_counters_behind_when_draining() -> None:
    world = World()
    client = world.client(GET)
    world.draining = True
    upstream, _wire = world.connect()
    upstream.data_received(OK)
    assert b"\r\nconnection: close\r\n" in client.transport.take()
    assert client.transport.closed


def test_an_endpoints_connection_that_was_paused_when_its_exchange_ended_is_read_for_the_next_one() -> None:
    world = World()
    slow = world.client(GET)
    slow.transport.full_at = 1000
    upstream, wire = world.connect()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000)
    assert upstream.host.idle == [upstream], "the response is whole, and waits for its client alone"
    assert not wire.paused
    world.client(GET)
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 50_000)
    assert not wire.paused


def idle_for(world: World, seconds: float, method: bytes = b"GET") -> tuple[Any, Any, Any]:
    """A client with one exchange behind it, so long ago; its endpoint's connection and wire."""
    client = world.client(GET)
    upstream, wire = world.connect()
    upstream.data_received(OK)
    client.transport.take()
    wire.take()
    world.pass_time(seconds)
    return client, upstream, wire


def test_a_request_that_may_not_be_sent_twice_goes_on_no_connection_whose_end_may_be_near() -> None:
    world = World()
    client, upstream, wire = idle_for(world, 2.0)
    client.data_received(POST + b"hello")
    assert not wire.take() and len(world.dialed) == 1
    assert not wire.closed and upstream.host.idle == [upstream], "kept, to see how long the endpoint keeps it"
    fresh, other = world.connect()
    assert other.take().endswith(b"hello")
    fresh.data_received(OK)
    world.pass_time(2.0)
    client.data_received(POST + b"hello")
    assert other.take().endswith(b"hello"), "the older one, still open, proves that this one is kept"


def test_a_request_that_may_be_sent_twice_takes_what_there_is() -> None:
    world = World()
    client, _, wire = idle_for(world, 20.0)
    client.data_received(GET)
    assert wire.take() and not world.dialed


def test_the_endpoints_own_word_is_kept_to() -> None:
    world = World()
    client = world.client(GET)
    upstream, wire = world.connect()
    upstream.data_received(OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: max=100, timeout=5\r\n\r\n"))
    assert upstream.host.closes_s == 5.0
    wire.take()
    world.pass_time(4.4)
    client.data_received(GET)
    assert wire.take()
    upstream.data_received(OK)
    world.pass_time(4.6)
    client.data_received(GET)
    assert not wire.take() and len(world.dialed) == 1


def test_an_endpoint_that_closes_what_is_idle_is_learnt_and_its_connections_retired_before() -> None:
    world = World()
    client = world.client(GET)
    host = None
    for _ in range(2):
        upstream, wire = world.connect()
        upstream.data_received(OK)
        host = upstream.host
        world.pass_time(5.0)
        lose(wire)
        client.data_received(GET)
    assert host is not None and host.closes_s == pytest.approx(5.0)
    upstream, wire = world.connect()
    upstream.data_received(OK)
    other = world.client(GET)  # the same connection again, and then a second one beside it
    third = world.client(GET)
    second, second_wire = world.connect()
    upstream.data_received(OK)
    second.data_received(OK)
    assert len(host.idle) == 2
    world.pass_time(4.8)
    pool = next(iter(world.pools.values()))
    pool.sweep(world.time)
    assert sorted((wire.closed, second_wire.closed)) == [False, True], "the oldest stays, to show when it is closed"
    assert other is not third


def test_connections_that_are_counted_are_not_kept_for_looking_at() -> None:
    world = World(cluster("10.0.0.1", limits=PoolLimits(max_connections=1)))
    client, _, wire = idle_for(world, 2.0)
    client.data_received(POST + b"hello")
    assert wire.closed and not world.dialed, "it stands in the way of another one"
    lose(wire)
    _, other = world.connect()
    assert other.take().endswith(b"hello")


def test_a_retry_budget_is_a_share_of_the_requests_in_flight_and_never_less_than_its_least() -> None:
    def refused(percent: float, least: int, running: int) -> int:
        """How many of so many requests at once, all of which fail, get no second try."""
        limits = PoolLimits(retry_percent=percent, retry_least=least, max_retries=1)
        world = World(cluster("10.0.0.1", limits=limits))
        clients = [world.client(GET) for _ in range(running)]
        for _ in clients:
            world.refuse()
        return sum(client.transport.take().startswith(b"HTTP/1.1 503") for client in clients)

    assert refused(20.0, 3, 10) == 7
    assert refused(0.0, 0, 10) == 10
    assert refused(100.0, 0, 10) <= 6


def test_a_connection_that_was_open_for_its_duration_carries_its_request_to_the_end_and_no_other() -> None:
    world = World(cluster("10.0.0.1", limits=PoolLimits(max_connection_duration_s=10.0)))
    client = world.client(GET)
    upstream, wire = world.connect()
    for _ in range(4):
        world.pass_time(2.4)
        upstream.data_received(OK)
        client.data_received(GET)
    assert not world.dialed
    world.pass_time(2.4)
    assert not wire.closed
    upstream.data_received(OK)
    assert wire.closed
    lose(wire)
    assert client.transport.take().count(b"200 OK") == 5
    client.data_received(GET)
    assert len(world.dialed) == 1


def test_an_idle_connection_is_closed_after_the_idle_time_of_its_rule_or_at_its_duration() -> None:
    for limits, closed in ((PoolLimits(idle_timeout_s=5.0), 5.0), (PoolLimits(max_connection_duration_s=7.0), 7.0)):
        world = World(cluster("10.0.0.1", limits=limits))
        world.client(GET)
        upstream, wire = world.connect()
        upstream.data_received(OK)
        pool = world.pools["outbound|80||web"]
        pool.sweep(world.time + closed - 0.01)
        assert not wire.closed
        pool.sweep(world.time + closed)
        assert wire.closed


def test_a_websocket_is_under_the_routes_timeout_until_it_is_one_and_no_longer() -> None:
    upgrade = b"GET /ws HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    decision = route(timeout_s=2.0, retries=RetryPolicy(1, frozenset({"5xx"}), per_try_timeout_s=1.5))
    world = World(decision=decision)
    client = world.client(upgrade)
    world.connect()
    world.pass_time(2.1)
    assert b"504" in client.transport.take()
    world = World(decision=decision)
    client = world.client(upgrade)
    upstream, wire = world.connect()
    world.pass_time(1.4)
    upstream.data_received(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    world.pass_time(86400)
    assert not client.transport.closed
    wire.protocol.data_received(b"late")
    assert client.transport.take().endswith(b"late")
    assert not world.outcomes


def test_the_routes_timeout_is_of_the_whole_response_a_stream_of_events_too_and_without_one_nothing_ends_it() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    for timeout_s in (60.0, None):
        world = World(decision=route(timeout_s=timeout_s))
        client = world.client(GET)
        upstream, _wire = world.connect()
        upstream.data_received(head)
        for _ in range(5):  # silence in between is nobody's business
            world.pass_time(11.9 if timeout_s else 4000.0)
            upstream.data_received(b"8\r\ndata: 1\n\r\n")
        assert client.transport.take().count(b"data: 1") == 5
        world.pass_time(1.0)
        assert client.transport.aborted is bool(timeout_s)
        assert [outcome.flag for outcome in world.outcomes] == (["UT"] if timeout_s else [])


def test_a_request_in_chunks_that_is_answered_meanwhile_may_be_silent_for_long() -> None:
    world = World()
    client = world.client(b"POST /x HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    upstream, wire = world.connect()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    world.pass_time(3000)
    upstream.data_received(b"1\r\nb\r\n")
    world.pass_time(3000)  # both together were silent for less than relay-idle-timeout
    assert not world.outcomes
    wire.take()
    client.data_received(b"2\r\nho\r\n")
    assert wire.take() == b"2\r\nho\r\n"
