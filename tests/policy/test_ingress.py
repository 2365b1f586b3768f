"""Ingress: which paths of which hosts lead where, at a gateway."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.compile import compile_tables
from fairlead.policy.decide import decide
from fairlead.policy.gateways import EVERY
from fairlead.policy.ingress import why_not
from fairlead.policy.tables import Arrival, Decision, SimpleRequest, Tables, Viewpoint
from fairlead.policy.validate import validate
from fairlead.policy.world import World
from fairlead.registry.documents import load
from fairlead.registry.model import Workload

SERVICES = "".join(
    f"""
---
kind: Service
apiVersion: v1
metadata: {{name: {name}, namespace: shop}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80}}, {{name: admin, port: 81}}]}}
"""
    for name in ("web", "api", "assets", "fallback")
)
OURS = "{ingressClassName: istio, "


def ingress(spec: str, name: str = "one", created: int = 1, annotations: str = "{}") -> str:
    return f"""
---
kind: Ingress
apiVersion: networking.k8s.io/v1
metadata:
  {{name: {name}, namespace: shop, creationTimestamp: "2026-01-01T00:00:{created:02d}Z", annotations: {annotations}}}
spec: {spec}
"""


def path(text: str, service: str, kind: str = "Prefix", port: str = "{number: 80}") -> str:
    return f'{{path: "{text}", pathType: {kind}, backend: {{service: {{name: {service}, port: {port}}}}}}}'


def rules(host: str, *paths: str) -> str:
    named = f"host: '{host}', " if host else ""
    return f"rules: [{{{named}http: {{paths: [{', '.join(paths)}]}}}}]"


def world(text: str) -> World:
    documents, problems = load(SERVICES + text, "shop.yaml")
    assert not problems
    made, reports = World.load(documents)
    assert all(report.valid for report in reports), [report.errors for report in reports]
    return made


def tables(text: str) -> Tables:
    made = world(text)
    workload = Workload("edge", "gateway-1", labels={"istio": "ingressgateway"})
    return compile_tables(made.resources, made.snapshot, Viewpoint(workload, EVERY))


def ask(own: Tables, target: str, host: str = "shop.example", port: int = 80, sni: str = "") -> Decision:
    server = own.gateway.ports[port].server(sni)
    arrival = Arrival("gateway", source_ip="203.0.113.7", port=port, sni=sni, tls=bool(sni), server=server.number)
    return decide(own, SimpleRequest(arrival, "GET", host, target, scheme="https" if sni else "http"))


def served(own: Tables, target: str, host: str = "shop.example") -> str:
    """The service and, where it is not 80, the port; empty: nobody's."""
    found = ask(own, target, host)
    if found.status == 404:
        return ""
    (one,) = found.destinations
    return one.host.partition(".")[0] + (f":{one.port}" if one.port != 80 else "")


def test_prefixes_are_of_whole_segments_and_exact_paths_exact() -> None:
    own = tables(ingress(OURS + rules("shop.example", path("/api", "api"), path("/api/v", "web", "Exact")) + "}"))
    cases = {"/api": "api", "/api/": "api", "/api/x?y": "api", "/apis": "", "/": "", "/api/v": "web", "/api/v/": "api"}
    assert {target: served(own, target) for target in cases} == cases


def test_a_slash_at_the_end_of_a_prefix_does_not_count() -> None:
    own = tables(ingress(OURS + rules("shop.example", path("/api/", "api")) + "}"))
    assert [served(own, target) for target in ("/api", "/api/", "/api/x", "/apix")] == ["api", "api", "api", ""]


def test_the_longest_path_comes_first_and_exact_before_prefix_whatever_the_order() -> None:
    text = rules(
        "shop.example", path("/", "web"), path("/a", "api"), path("/a/b", "assets"), path("/a", "fallback", "Exact")
    )
    own = tables(ingress(OURS + text + "}"))
    cases = {
        "/": "web",
        "/x": "web",
        "/a": "fallback",
        "/a/": "api",
        "/a/x": "api",
        "/a/b": "assets",
        "/a/b/c": "assets",
    }
    assert {target: served(own, target) for target in cases} == cases


def test_ingresses_of_one_host_are_one_and_the_older_wins_a_path() -> None:
    text = ingress(OURS + rules("shop.example", path("/a", "api")) + "}", "newer", 9)
    text += ingress(OURS + rules("shop.example", path("/a", "web"), path("/b", "web")) + "}", "older", 1)
    text += ingress(OURS + rules("shop.example", path("/a/b", "assets")) + "}", "newest", 10)
    own = tables(text)
    assert [served(own, target) for target in ("/a", "/b", "/a/b")] == ["web", "web", "assets"]


def test_hosts_are_exact_or_wildcards_or_all() -> None:
    text = ingress(OURS + rules("shop.example", path("/", "web")) + "}", "a")
    text += ingress(OURS + rules("*.example", path("/", "api")) + "}", "b")
    text += ingress(OURS + rules("", path("/", "fallback")) + "}", "c")
    own = tables(text)
    hosts = {"shop.example": "web", "x.example": "api", "other": "fallback", "SHOP.example:8080": "web"}
    assert {host: served(own, "/", host) for host in hosts} == hosts


def test_the_default_backend_takes_what_no_rule_takes() -> None:
    backend = "defaultBackend: {service: {name: fallback, port: {name: admin}}}"
    own = tables(ingress(OURS + backend + ", " + rules("shop.example", path("/a", "api")) + "}"))
    assert [served(own, "/a"), served(own, "/b"), served(own, "/", "other")] == ["api", "fallback:81", "fallback:81"]
    own = tables(ingress(OURS + backend + "}"))
    assert served(own, "/any", "any") == "fallback:81"


def test_ports_by_name_are_the_services_and_an_unknown_one_drops_its_path() -> None:
    own = tables(ingress(OURS + rules("shop.example", path("/a", "api", port="{name: admin}"),
                                      path("/b", "api", port="{name: none}")) + "}"))  # fmt: skip
    assert [served(own, "/a"), served(own, "/b")] == ["api:81", ""]


@pytest.mark.parametrize(
    ("text", "hits", "misses"),
    [
        ("/a", ["/a"], ["/a/", "/ab"]),
        ("/a/*", ["/a/", "/a/b"], ["/ab", "/a"]),
        ("/a.*", ["/a", "/ab", "/a/b"], ["/b"]),
        ("/*", ["/", "/x"], []),
        ("", ["/", "/x"], []),
    ],
)
def test_paths_of_no_stated_kind_are_as_istios(text: str, hits: list[str], misses: list[str]) -> None:
    own = tables(ingress(OURS + rules("shop.example", path(text, "web", "ImplementationSpecific")) + "}"))
    assert [served(own, target) for target in hits] == ["web"] * len(hits)
    assert [served(own, target) for target in misses] == [""] * len(misses)


def test_nginx_rewrite_target_replaces_the_path_and_its_groups() -> None:
    note = "{nginx.ingress.kubernetes.io/rewrite-target: /$2}"
    text = rules("shop.example", path("/app(/|$)(.*)", "web", "ImplementationSpecific"), path("/", "api"))
    own = tables(ingress(OURS + text + "}", annotations=note))
    found = {target: ask(own, target).path for target in ("/app/x/y?q=1", "/app", "/APP/x", "/app/")}
    assert found == {"/app/x/y?q=1": "/x/y?q=1", "/app": "/", "/APP/x": "/x", "/app/": "/"}
    assert served(own, "/application") == "api"
    plain = tables(ingress(OURS + rules("shop.example", path("/old", "web")) + "}",
                           annotations="{nginx.ingress.kubernetes.io/rewrite-target: /new}"))  # fmt: skip
    assert [ask(plain, target).path for target in ("/old", "/old/x", "/older")] == ["/new", "/new", "/new"]


def test_tls_adds_a_server_for_its_hosts_and_plain_http_stays() -> None:
    text = (
        OURS + "tls: [{hosts: [shop.example], secretName: shop-cert}], " + rules("shop.example", path("/", "web")) + "}"
    )
    own = tables(ingress(text))
    assert served(own, "/") == "web"
    assert ask(own, "/", port=443, sni="shop.example").destinations[0].host.startswith("web.")
    server = own.gateway.ports[443].server("shop.example")
    assert server is not None and server.tls.credential_name == "kubernetes-gateway://shop/shop-cert"
    assert own.gateway.ports[443].server("other.example") is None


@pytest.mark.parametrize(
    ("spec", "more", "annotations", "why"),
    [
        ("{ingressClassName: istio, ", "", "{}", ""),
        ("{ingressClassName: nginx, ", "", "{kubernetes.io/ingress.class: istio}", ""),
        ("{ingressClassName: nginx, ", "", "{}", "class nginx is neither MeshConfig's ingressClass (istio) nor"),
        ("{", "", "{}", "it names no class"),
        ("{", "default", "{}", ""),
        ("{ingressClassName: edge, ", "class", "{}", ""),
        ("{ingressClassName: edge, ", "other", "{}", "class edge is neither"),
        ("{", "DEFAULT", "{}", ""),
        ("{ingressClassName: istio, ", "OFF", "{}", "ingressControllerMode is OFF"),
        ("{ingressClassName: public, ", "named", "{}", ""),
    ],
)
def test_classes(spec: str, more: str, annotations: str, why: str) -> None:
    controller = "someone/else" if more == "other" else "fairlead.dev/ingress-controller"
    default = "{ingressclass.kubernetes.io/is-default-class: 'true'}" if more == "default" else "{}"
    text = ingress(spec + rules("shop.example", path("/", "web")) + "}", annotations=annotations)
    if more in ("default", "class", "other"):
        text += "---\nkind: IngressClass\napiVersion: networking.k8s.io/v1\n"
        text += f"metadata: {{name: edge, annotations: {default}}}\n"
        text += f"spec: {{controller: {controller}}}\n"
    elif more:
        setting = "ingressClass: public" if more == "named" else f"ingressControllerMode: '{more}'"
        text += (
            f"---\nkind: MeshConfig\napiVersion: fairlead.dev/v1\nmetadata: {{name: default}}\nspec: {{{setting}}}\n"
        )
    made = world(text)
    told = why_not(made.resources.ingresses[0], made.resources)
    assert (told == "") == (why == "") and why in told
    assert bool(tables(text).gateway.ports) == (why == "")


@pytest.mark.parametrize(
    ("spec", "at", "says"),
    [
        ("{ingressClassName: istio}", "spec", "either `defaultBackend` or `rules`"),
        (OURS + rules("*x.example", path("/", "web")) + "}", "spec.rules[0].host", "label"),
        (OURS + rules("a.example", path("api", "web")) + "}", "spec.rules[0].http.paths[0].path", "absolute"),
        (OURS + rules("a.example", path("/a//b", "web")) + "}", "spec.rules[0].http.paths[0].path", "'//'"),
        (
            OURS + rules("a.example", path("/", "web", port="{}")) + "}",
            "spec.rules[0].http.paths[0].backend.service.port",
            "required",
        ),
        (OURS + "defaultBackend: {}}", "spec.defaultBackend.service", "only services"),
    ],
)
def test_what_kubernetes_refuses_is_refused_with_its_field(spec: str, at: str, says: str) -> None:
    documents, _ = load(ingress(spec), "x.yaml")
    (report,) = validate(documents)
    told = {one.path: one.message for one in report.errors}
    assert at in told, told
    assert says in told[at]


def test_annotations_of_nginx_that_are_not_carried_out_are_told() -> None:
    note = "{nginx.ingress.kubernetes.io/proxy-body-size: 8m, nginx.ingress.kubernetes.io/rewrite-target: /}"
    documents, _ = load(
        SERVICES + ingress(OURS + rules("a.example", path("/(", "web")) + "}", annotations=note), "x.yaml"
    )
    report = validate(documents)[-1]
    assert [one.path for one in report.warnings] == [
        "metadata.annotations[nginx.ingress.kubernetes.io/proxy-body-size]"
    ]
    assert "no regular expression" in report.errors[0].message


def test_backends_and_classes_that_are_not_there_are_told() -> None:
    paths = [path("/", "gone"), path("/p", "web", port="{name: x}"), path("/n", "web", port="{number: 99}")]
    text = ingress("{ingressClassName: other, " + rules("a.example", *paths) + "}")
    documents, _ = load(SERVICES + text, "x.yaml")
    told = {one.path: one.message for one in validate(documents)[-1].warnings}
    assert "class other is neither" in told["spec.ingressClassName"]
    place = "spec.rules[0].http.paths[{}].backend.service"
    assert "no service gone.shop.svc.cluster.local is known" in told[place.format(0) + ".host"]
    assert "has no port x; it has http, admin" in told[place.format(1) + ".port.name"]
    assert "has no port 99; it has 80, 81" in told[place.format(2) + ".port.number"]


SEGMENT = st.sampled_from(["a", "b", "ab"])
PATHS = st.builds(lambda parts: "/" + "/".join(parts), st.lists(SEGMENT, max_size=3))


@given(st.lists(st.tuples(PATHS, st.sampled_from(["Exact", "Prefix"])), min_size=1, max_size=5, unique=True), PATHS)
def test_any_set_of_paths_is_decided_as_kubernetes_documentation_says(
    wanted: list[tuple[str, str]], asked: str
) -> None:
    names = {pair: f"s{number}" for number, pair in enumerate(wanted)}
    own = tables(
        ingress(OURS + rules("shop.example", *(path(text, names[text, kind], kind) for text, kind in wanted)) + "}")
    )

    def holds(text: str, kind: str) -> bool:
        if kind == "Exact":
            return asked == text
        have, want = asked.strip("/").split("/"), text.strip("/").split("/")
        return want == [""] or have[: len(want)] == want

    fitting = sorted((pair for pair in wanted if holds(*pair)), key=lambda pair: (-len(pair[0]), pair[1] != "Exact"))
    found = ask(own, asked)
    assert (names[fitting[0]] if fitting else "") == (
        found.destinations[0].host.partition(".")[0] if found.destinations else ""
    )
