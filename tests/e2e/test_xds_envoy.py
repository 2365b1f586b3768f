"""A real Envoy as a member of the mesh, fed by control's xDS, with mutual TLS to and from sidecars of our own."""

# ruff: noqa: E501 - manifests
from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from fairlead.control.xds_server import SERVICE
from fairlead.control.xds_session import CDS
from fairlead.control.xds_wire import encode
from tests.e2e.roles import free_port, until
from tests.e2e.xds_mesh import STRICT, host, mesh_in, pod, service, told

pytestmark = pytest.mark.asyncio

ONLY_FRIENDS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends-only}
spec:
  podSelector: {matchLabels: {app: theirs}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
"""


@pytest.mark.parametrize("protocol", ["delta", "state of the world"])
async def test_envoy_reaches_our_sidecar_and_is_reached_by_mutual_tls(tmp_path: Path, protocol: str) -> None:
    flags = ["--state-of-the-world"] if protocol != "delta" else []
    async with mesh_in(tmp_path, "ours", "theirs") as (mesh, (ours, theirs)):
        at = {name: free_port() for name in ("ours", "theirs", "friend")}
        await mesh.apply(
            STRICT, service("ours"), service("theirs"), pod("ours-1", "ours", at["ours"], ours.port),
            pod("theirs-1", "theirs", 0, theirs.port), pod("friend-1", "friend"),
        )  # fmt: skip
        await mesh.sidecar("default/ours-1", "ours", at["ours"])
        friend = await mesh.sidecar("default/friend-1", "friend", at["friend"])
        envoy = await mesh.envoy("default/theirs-1", "theirs", at["theirs"], *flags)

        # Envoy to our sidecar: it shows its identity, and ours is one that the service may have.
        text = await mesh.until_answers(envoy.outbound, host("ours"))
        assert "spiffe://cluster.local/ns/default/sa/theirs" in told(text)["headers"]["x-forwarded-client-cert"]
        assert told(text)["app"] == "ours"
        assert (await mesh.ask(envoy.outbound, "ours:80"))[0] == 200
        # Our sidecar to Envoy.
        text = await mesh.until_answers(friend.url("outbound", ""), host("theirs"))
        assert told(text)["app"] == "theirs"
        assert "spiffe://cluster.local/ns/default/sa/friend" in told(text)["headers"]["x-forwarded-client-cert"]

        # What control knows of it.
        async def runs() -> bool:
            member = await mesh.member("default/theirs-1")
            return member is not None and bool(member["taken"]) and member["taken"] == member["offered"]

        await until("control to hear what Envoy runs", runs)
        member = await mesh.member("default/theirs-1")
        assert member is not None
        assert (member["proxy"], member["mesh_port"], member["refused"]) == ("envoy", at["theirs"], "")

        # NetworkPolicy in Envoy.
        await mesh.apply(ONLY_FRIENDS.replace("app: friend", "app: stranger"))
        await mesh.until_answers(friend.url("outbound", ""), host("theirs"), 403)
        await mesh.apply(ONLY_FRIENDS)
        await mesh.until_answers(friend.url("outbound", ""), host("theirs"))

        # An endpoint that is gone is gone from Envoy.
        await mesh.delete("pod", "ours-1")
        await mesh.until_answers(envoy.outbound, host("ours"), 503)


EVERYTHING = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ours}
spec:
  host: ours
  trafficPolicy:
    loadBalancer:
      simple: ROUND_ROBIN
      warmup: {duration: 10s, minimumPercent: 20, aggression: 1.5}
      localityLbSetting: {enabled: true, distribute: [{from: 'r/*', to: {'r/*': 100}}]}
    connectionPool:
      tcp: {maxConnections: 10, connectTimeout: 3s, tcpKeepalive: {probes: 3, time: 60s, interval: 5s}, idleTimeout: 60s,
            maxConnectionDuration: 1h}
      http: {http1MaxPendingRequests: 5, http2MaxRequests: 50, maxRequestsPerConnection: 7, maxRetries: 3, idleTimeout: 30s,
             h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 9, http2KeepAlive: {interval: 5s, timeout: 2s}}
    outlierDetection: {consecutive5xxErrors: 3, consecutiveGatewayErrors: 2, splitExternalLocalOriginErrors: true,
                       consecutiveLocalOriginFailures: 4, interval: 5s, baseEjectionTime: 10s, maxEjectionPercent: 50,
                       minHealthPercent: 20, successRateMinimumHosts: 3}
    retryBudget: {percent: 10, minRetryConcurrency: 2}
    proxyProtocol: {version: V2}
  subsets:
  - {name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: c, ttl: 5s, path: /}}}}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-a, maglev: {tableSize: 251}}}}}
  - {name: v3, labels: {version: v3}, trafficPolicy: {loadBalancer: {simple: PEAK_EWMA}, tls: {mode: DISABLE}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ours}
spec:
  hosts: [ours]
  http:
  - name: first
    match: [{uri: {prefix: /a}, sourceNamespace: default, headers: {x-a: {regex: a.*}}, queryParams: {q: {exact: '1'}}}]
    route:
    - {destination: {host: ours, subset: v1}, weight: 60, headers: {request: {set: {x-b: b}}}}
    - {destination: {host: ours, subset: v2}, weight: 40}
    retries: {attempts: 3, perTryTimeout: 1s, retryOn: 'gateway-error,503', backoff: 30ms, retryRemoteLocalities: true}
    timeout: 5s
    mirrors: [{destination: {host: ours, subset: v3}, percentage: {value: 0.5}}]
    fault: {delay: {fixedDelay: 1ms, percentage: {value: 0.1}}, abort: {grpcStatus: UNAVAILABLE, percentage: {value: 0}}}
    corsPolicy: {allowOrigins: [{prefix: 'https://'}], maxAge: 5s}
    rewrite: {uri: /b, authority: other}
  - match: [{uri: {regex: '/r.*'}, withoutHeaders: {x-b: {}}}]
    redirect: {authority: other, derivePort: FROM_PROTOCOL_DEFAULT}
  - route: [{destination: {host: ours, subset: v3}}]
"""
UNREADABLE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: theirs}
spec: {host: theirs, trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /nowhere/ca.pem}}}
"""


async def test_envoy_takes_every_setting_and_what_it_refuses_or_cannot_do_is_told(tmp_path: Path) -> None:
    async with mesh_in(tmp_path, "theirs") as (mesh, (theirs,)):
        await mesh.apply(
            service("ours"), service("theirs"), pod("ours-1", "ours", 1234, 1234), pod("theirs-1", "theirs", 0, theirs.port),
            EVERYTHING,
        )  # fmt: skip
        envoy = await mesh.envoy("default/client-1", "client")

        async def state() -> tuple[str, str, list[str], list[str]]:
            member = await mesh.member("default/client-1")
            assert member is not None
            return member["taken"], member["refused"], member["reasons"], member["not_carried_out"]

        async def runs() -> bool:
            member = await mesh.member("default/client-1")
            return member is not None and not member["refused"] and member["taken"] == member["offered"]

        await until("Envoy to take everything", runs)
        taken, _, _, told = await state()
        assert told == ["DestinationRule default/ours: PEAK_EWMA is carried out as LEAST_REQUEST"]
        assert (await mesh.ask(envoy.outbound, host("theirs")))[0] == 200

        await mesh.apply(UNREADABLE)

        async def refuses() -> bool:
            return bool((await state())[1])

        await until("Envoy's refusal to be known", refuses)
        _, _, reasons, _ = await state()
        assert any("Cluster: " in why and "/nowhere/ca.pem" in why for why in reasons), reasons
        assert (await mesh.ask(envoy.outbound, host("theirs")))[0] == 200  # it keeps what it has
        code, out, _ = await mesh.roles.command("status", "--control", mesh.control_url)
        assert code == 1
        assert "/nowhere/ca.pem" in out
        assert "not carried out: DestinationRule default/ours: PEAK_EWMA" in out

        await mesh.delete("destinationrule", "theirs")
        await until("Envoy to take what is better", runs)
        assert (await state())[0] != taken


async def test_nobody_gets_what_is_anothers(tmp_path: Path) -> None:
    """A node is who its certificate says; without one, there is nothing to be had."""
    async with mesh_in(tmp_path, "theirs") as (mesh, (theirs,)):
        await mesh.apply(
            service("theirs"), pod("theirs-1", "theirs", 0, theirs.port), pod("thief-1", "thief"),
        )  # fmt: skip
        _, bootstrap = await mesh.beside("envoy", "default/thief-1", "thief")
        folder = bootstrap.parent
        roots, key, chain = ((folder / name).read_bytes() for name in ("roots.pem", "key.pem", "cert.pem"))
        own = grpc.ssl_channel_credentials(roots, key, chain)
        for credentials, node, wanted in (
            (own, "default/theirs-1", grpc.StatusCode.PERMISSION_DENIED),
            (own, "other/thief-1", grpc.StatusCode.PERMISSION_DENIED),
            (own, "thief-1", grpc.StatusCode.INVALID_ARGUMENT),
            (grpc.ssl_channel_credentials(roots), "default/thief-1", grpc.StatusCode.UNAVAILABLE),
            (own, "default/thief-1", None),
        ):
            request = encode("service.discovery.v3.DiscoveryRequest", {"node": {"id": node}, "type_url": CDS})
            async with grpc.aio.secure_channel(f"localhost:{mesh.xds_port}", credentials) as channel:
                call = channel.stream_stream(f"/{SERVICE}/StreamAggregatedResources")()
                try:
                    await call.write(request)
                    answer = await asyncio.wait_for(call.read(), 10)
                    assert wanted is None or answer is grpc.aio.EOF
                except grpc.aio.AioRpcError as error:
                    code: grpc.StatusCode | None = error.code()
                else:
                    code = None if wanted is None else await call.code()
                    call.cancel()
                assert code is wanted, node
        assert await mesh.member("default/theirs-1") is None


async def test_a_server_with_another_identity_is_not_spoken_to(tmp_path: Path) -> None:
    """The port that the registry gives for a service is taken by another workload's sidecar: Envoy closes."""
    async with mesh_in(tmp_path, "app") as (mesh, (app,)):
        port = free_port()
        await mesh.apply(
            STRICT, service("ours"), pod("ours-1", "ours", port, app.port), pod("impostor-1", "impostor", 0, app.port),
        )  # fmt: skip
        await mesh.sidecar("default/impostor-1", "impostor", port)
        envoy = await mesh.envoy("default/client-1", "client")
        await mesh.until_answers(envoy.outbound, host("ours"), 503)
        async with mesh.session.get(f"{envoy.admin}/stats?filter=ours.*fail_verify_san") as answer:
            told = await answer.text()
        assert int(told.split(": ")[1]) > 0, told
        assert not app.seen


async def test_opaque_connections_go_by_named_ports_and_policies_of_connections_hold(tmp_path: Path) -> None:
    async with mesh_in(tmp_path, "ours", "theirs") as (mesh, (ours, theirs)):
        at = {name: free_port() for name in ("ours", "theirs", "friend")}
        to_ours, to_theirs = free_port(), free_port()
        await mesh.apply(
            service("ours", "tcp"), service("theirs", "tcp"), pod("ours-1", "ours", at["ours"], ours.port),
            pod("theirs-1", "theirs", 0, theirs.port), pod("friend-1", "friend"),
        )  # fmt: skip
        await mesh.sidecar("default/ours-1", "ours", at["ours"])
        await mesh.envoy("default/theirs-1", "theirs", at["theirs"], "--listen", f"127.0.0.1:{to_ours}=ours.default:80")
        await mesh.envoy("default/friend-1", "friend", 0, "--listen", f"127.0.0.1:{to_theirs}=theirs.default:80")
        assert told(await mesh.until_answers(f"http://127.0.0.1:{to_ours}", "any"))["app"] == "ours"
        assert told(await mesh.until_answers(f"http://127.0.0.1:{to_theirs}", "any"))["app"] == "theirs"
        plain = f"http://127.0.0.1:{at['theirs']}"
        assert told(await mesh.until_answers(plain, "any"))["app"] == "theirs"  # PERMISSIVE
        await mesh.apply(STRICT)
        await mesh.until_answers(plain, "any", 0)
        assert (await mesh.ask(f"http://127.0.0.1:{to_theirs}", "any"))[0] == 200
        await mesh.apply(ONLY_FRIENDS.replace("app: friend", "app: nobody"))
        await mesh.until_answers(f"http://127.0.0.1:{to_theirs}", "any", 0)


async def test_envoy_goes_on_without_control_and_hears_of_an_endpoint_that_goes_at_once(
    tmp_path: Path,
) -> None:
    async with mesh_in(tmp_path, "one", "two") as (mesh, (one, two)):
        await mesh.apply(service("web"), pod("web-1", "web", 0, one.port), pod("web-2", "web", 0, two.port))
        envoy = await mesh.envoy("default/client-1", "client")
        seen = {told(await mesh.until_answers(envoy.outbound, host("web")))["app"] for _ in range(20)}
        assert seen == {"one", "two"}
        gone = asyncio.get_running_loop().time()
        async with mesh.session.delete(f"{mesh.control_url}/api/v1/namespaces/default/pods/web-2") as answer:
            assert answer.status == 200

        async def alone() -> bool:
            async with mesh.session.get(f"{envoy.admin}/clusters") as answer:
                return f"outbound|80||{host('web')}::127.0.0.1:{two.port}::" not in await answer.text()

        await until("Envoy to hear of it", alone)
        took = asyncio.get_running_loop().time() - gone
        print(f"heard {took * 1000:.0f} ms after it was asked for")
        assert {told((await mesh.ask(envoy.outbound, host("web")))[2])["app"] for _ in range(10)} == {"one"}
        await mesh.control.kill()
        assert (await mesh.ask(envoy.outbound, host("web")))[0] == 200
        await mesh.start_control()
        await mesh.apply(pod("web-2", "web", 0, two.port))

        async def both() -> bool:
            return "two" in (await mesh.ask(envoy.outbound, host("web")))[2]

        await until("Envoy to hear the new control", both)


async def test_a_revoked_service_account_is_let_in_by_no_envoy_until_it_is_restored(tmp_path: Path) -> None:
    async with mesh_in(tmp_path, "theirs") as (mesh, (theirs,)):
        at = {name: free_port() for name in ("theirs", "friend", "stranger")}
        await mesh.apply(
            STRICT, service("theirs"), pod("theirs-1", "theirs", 0, theirs.port), pod("friend-1", "friend"),
            pod("stranger-1", "stranger"),
        )  # fmt: skip
        friend, stranger = [await mesh.sidecar(f"default/{name}-1", name, at[name]) for name in ("friend", "stranger")]
        await mesh.envoy("default/theirs-1", "theirs", at["theirs"])
        for one in (friend, stranger):
            await mesh.until_answers(one.url("outbound", ""), host("theirs"))
        what = ("--service-account", "default/stranger", "--control", mesh.control_url)
        code, out, err = await mesh.roles.command("certs", "revoke", *what)
        assert code == 0, out + err
        await mesh.until_answers(stranger.url("outbound", ""), host("theirs"), 403)
        assert (await mesh.ask(friend.url("outbound", ""), host("theirs")))[0] == 200
        code, out, err = await mesh.roles.command("certs", "restore", "--certificates", *what)
        assert code == 0, out + err
        await mesh.until_answers(stranger.url("outbound", ""), host("theirs"))
