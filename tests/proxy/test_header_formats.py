"""Header operations with format operators are filled with one exchange's values."""

from __future__ import annotations

import pytest

from fairlead.policy.format_operators import PLAIN, Template, read
from fairlead.policy.tables import Arrival, HeaderOps
from fairlead.proxy.access_log import OPERATORS
from fairlead.proxy.header_formats import Formatted, of
from fairlead.proxy.message import Outcome, RequestHead

AT = 1_700_000_000.123456


def outcome() -> Outcome:
    made = Outcome()
    head = RequestHead()
    head.raw = b"GET /p HTTP/1.1\r\nHost: web\r\nX-A: one\r\nX-A: two\r\n\r\n"
    head.first, head.method, head.path, head.authority = 17, "GET", "/p", "web"
    made.request = head
    made.arrival = Arrival("outbound", source_ip="10.0.0.9", source_port=4711)
    made.local_address = "10.0.0.1:15001"
    made.started_at = 100.0
    made.status = 200
    made.request_id = "id"
    return made


def test_everything_that_policy_takes_has_a_value_here() -> None:
    assert PLAIN - {"HOSTNAME"} == set(OPERATORS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("%DOWNSTREAM_REMOTE_ADDRESS%", "10.0.0.9:4711"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.9"),
        ("%DOWNSTREAM_DIRECT_REMOTE_PORT%", "4711"),
        ("%DOWNSTREAM_LOCAL_ADDRESS%|%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%|%DOWNSTREAM_LOCAL_PORT%",
         "10.0.0.1:15001|10.0.0.1|15001"),
        ("%PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS%", "HTTP/1.1 200 -"),
        ("%REQ(X-A)% %REQ(X-NONE?:METHOD)% %REQ(:AUTHORITY):2%", "one GET we"),
        ("[%REQ(X-NONE)%%RESP(X-A)%%UPSTREAM_HOST%%UPSTREAM_REMOTE_PORT%%DOWNSTREAM_PEER_URI_SAN%]", "[]"),
        ("%HOSTNAME%", "machine"),
        ("%STREAM_ID%", "id"),
        ("%START_TIME%", "2023-11-14T22:13:20.123Z"),
        ("%START_TIME(%Y/%m/%d %H:%M:%S)%", "2023/11/14 22:13:20"),
        ("%START_TIME(%s.%3f)%|%START_TIME(%f)%", "1700000000.123|123456001"),
        ("100%% %ENVIRONMENT(HOME)%", "100% "),
    ],
)  # fmt: skip
def test_an_operator_has_the_value_that_envoy_gives_it(text: str, value: str) -> None:
    made = read(text)
    assert isinstance(made, Template)
    assert of(made)(outcome(), AT - 100.0, "machine") == value


def test_a_header_without_a_value_is_neither_set_nor_added() -> None:
    ops = HeaderOps(
        set=(("x-a", read("%REQ(X-NONE)%")), ("x-b", "plain"), ("x-c", read("%PROTOCOL%"))),
        add=(("x-d", read("%RESP(X-NONE)%")), ("x-e", "more")),
        remove=("x-f",),
    )
    filled = Formatted(ops).filled(outcome(), 0.0, "")
    assert filled.set == (("x-b", "plain"), ("x-c", "HTTP/1.1"))
    assert (filled.add, filled.remove) == ((("x-e", "more"),), ("x-f",))
