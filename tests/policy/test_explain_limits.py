"""The trace says which local rate limits count a request, on both sides."""

from __future__ import annotations

from typing import Any

from fairlead.policy.explain import explain
from tests.policy.test_decide import CALLER, SHOP
from tests.policy.test_rate_limits import BUCKET, limits
from tests.policy.worlds import World

OUT = limits(
    f"{{context: SIDECAR_OUTBOUND, limits: [{{name: posts, match: {{methods: [POST]}}, {BUCKET}}}]}}", name="out"
)
IN = limits(
    f"{{selector: {{matchLabels: {{app: web}}}}, limits: [{{name: api, match: {{uri: {{prefix: /api}}}},"
    f" enforce: false, {BUCKET}}}], connections: [{{name: new, port: 8080, {BUCKET}}}]}}",
    name="in",
)


def steps(text: str, url: str = "http://web.shop/api", **more: Any) -> list[tuple[str, str]]:
    query = {"method": "GET", "url": url, "from": "shop/front-1", **more}
    trace = explain(World(SHOP + CALLER + text), query)["trace"]
    return [(step["object"].partition(" (")[0], step["result"]) for step in trace if step["step"] == "rate-limit"]


def test_limits_of_the_source_and_of_the_destination_are_told_whether_they_count_or_not() -> None:
    out, new, api = (
        "LocalRateLimit shop/out limit posts", "LocalRateLimit shop/in limit new", "LocalRateLimit shop/in limit api",
    )  # fmt: skip
    assert steps(OUT + IN) == [(out, "no match"), (new, "counts"), (api, "counts")]
    assert steps(OUT + IN, "http://web.shop/x", method="POST") == [
        (out, "counts"), (new, "counts"), (api, "no match"),
    ]  # fmt: skip
    assert steps(OUT + IN, "http://api.shop:9080/api", method="POST") == [(out, "counts")]


def test_the_trace_has_the_numbers_the_place_and_whether_it_is_enforced() -> None:
    trace = explain(World(SHOP + CALLER + IN), {"method": "GET", "url": "http://web.shop/api", "from": "shop/front-1"})
    (step,) = [one for one in trace["trace"] if " limit api" in one["object"]]
    assert (step["resource"], step["path"]) == ("LocalRateLimit shop/in", "spec.limits")
    assert step["why"] == (
        "LocalRateLimit shop/in limit api lets 10 requests at once, then 1 every 1 s through; "
        "it is not enforced, only counted"
    )


def test_without_limits_nothing_is_said_of_them() -> None:
    assert steps("") == []
