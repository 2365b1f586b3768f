"""A workload that nothing declares says what it likes of itself to a real control plane, and gains nothing by it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.roles import Role, Roles, client, free_port, roles_in, until

pytestmark = pytest.mark.asyncio
OBJECTS = """
apiVersion: v1
kind: Service
metadata: {name: payments, namespace: shop}
spec: {selector: {app: payments}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: listed, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: listed-1, namespace: shop, labels: {kubernetes.io/service-name: listed}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [127.0.0.9], targetRef: {kind: Pod, name: listed-1}}]
---
apiVersion: v1
kind: Secret
metadata: {name: edge, namespace: shop}
type: kubernetes.io/tls
stringData: {tls.crt: CERT, tls.key: THE-KEY}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: ["*"], tls: {mode: SIMPLE, credentialName: edge}}
---
apiVersion: v1
kind: Pod
metadata: {name: victim-1, namespace: shop, labels: {app: victim}, annotations: {fairlead.dev/address: 10.9.9.9}}
spec: {serviceAccountName: victim}
"""
DECLARED_LATER = """
apiVersion: v1
kind: Pod
metadata:
  {name: edge-9, namespace: shop, labels: {istio: ingressgateway}, annotations: {fairlead.dev/address: 10.9.9.8}}
spec: {serviceAccountName: edge}
"""
GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: payments, namespace: shop}
spec:
  metadata: {labels: {app: payments, version: v1}}
  template: {serviceAccount: payments, ports: {http: 8080}, locality: r/z}
"""


class Mesh:
    def __init__(self, roles: Roles, session: aiohttp.ClientSession, url: str, control: Role) -> None:
        self.control = control
        self.roles = roles
        self.session = session
        self.url = url

    async def apply(self, text: str) -> None:
        code, out, err = await self.roles.command("apply", "-f", "-", "--control", self.url, stdin=text.encode())
        assert code == 0, out + err

    async def token(self, account: str, *flags: str) -> str:
        flags = ("-n", "shop", "--service-account", account, *flags, "--control", self.url)
        code, out, err = await self.roles.command("token", "create", *flags)
        assert code == 0, err
        return out.strip()

    @contextlib.asynccontextmanager
    async def feed(self, token: str, workload: str, **said: str) -> AsyncIterator[list[str]]:
        """What a sidecar of our own making is told first: what is not believed of it, and its items."""
        query = {"role": "sidecar", "namespace": "shop", "workload": workload, "meshPort": "15006", **said}
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.session.get(f"{self.url}/fairlead/v1/feed", params=query, headers=bearer) as answer:
            lines = []
            if answer.status != 200:
                lines.append(f"{answer.status} {await answer.text()}")
            while answer.status == 200 and b'"set"' not in (line := await answer.content.readline()):
                lines.append(line.decode())
            yield [*lines, line.decode() if answer.status == 200 else ""]

    async def endpoints(self, service: str) -> list[dict[str, Any]]:
        async with self.session.get(f"{self.url}/fairlead/v1/world") as answer:
            items = (await answer.json())["set"]
        found: Any = items.get(f"endpoints/{service}.shop.svc.cluster.local") or []
        return list(json.loads(found) if isinstance(found, str) else found)

    async def member(self, name: str) -> dict[str, Any]:
        async with self.session.get(f"{self.url}/fairlead/v1/status") as answer:
            return next((one for one in (await answer.json())["sidecars"] if one["workload"] == name), {})


@contextlib.asynccontextmanager
async def mesh(folder: Path, *flags: str) -> AsyncIterator[Mesh]:
    async with roles_in(folder) as roles, client() as session:
        port = free_port()
        data = str(folder / "control")
        control = await roles.start("control", "--listen", f"127.0.0.1:{port}", "--data-dir", data, *flags)
        made = Mesh(roles, session, f"http://127.0.0.1:{port}", control)
        await made.apply(OBJECTS)
        yield made


async def test_a_low_value_token_gets_no_place_no_address_and_no_key_by_what_it_says(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made:
        low = await made.token("batch")
        async with made.feed(low, "batch-1", labels="app=payments", address="127.0.0.5") as told:
            assert any("labels app=payments" in line for line in told if "claims" in line)
            assert (await made.member("batch-1"))["labels"] == {}
            assert await made.endpoints("payments") == []
            code, out, _ = await made.roles.command("status", "--control", made.url)
            assert code == 0 and "not believed: labels app=payments" in out and "WorkloadGroup" in out
            _, out, _ = await made.roles.command("check", "--control", made.url)
            assert "what it says of itself is not believed: labels app=payments" in out
        async with made.feed(low, "batch-2", address="10.9.9.9") as told:  # a victim's, which is declared
            assert any("address 10.9.9.9: it connects from 127.0.0.1" in line for line in told)
            assert (await made.member("batch-2"))["address"] == ""
        async with made.feed(low, "edge-1", role="gateway", labels="istio=ingressgateway") as told:
            assert not any("tls.key" in line for line in told)
        async with made.feed(low, "victim-1") as told:  # another's identity
            assert told[0].startswith("403 ") and "runs as service account victim" in told[0]
        async with made.feed(low, "listed-1", address="127.0.0.9"):  # a name that a source lists, and nothing declares
            (one,) = await made.endpoints("listed")
            assert (one.get("service_account"), one.get("mesh_port")) == (None, None)
        assert "is not believed" in made.control.log


async def test_what_somebody_gave_to_the_account_counts_at_once_and_by_certificate_alone(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made:
        weak = await made.token("payments")
        async with made.feed(weak, "payments-1", labels="app=payments", address="127.0.0.5"):
            assert await made.endpoints("payments") == []
            await made.apply(GROUP)  # while it is connected

            async def there() -> list[dict[str, Any]]:
                return await made.endpoints("payments")

            (one,) = await until("its endpoint", there)
            assert (one["labels"], one["service_account"], one["locality"]) == (
                {"app": "payments", "version": "v1"}, "payments", "r/z",
            )  # fmt: skip
            assert (await made.member("payments-1"))["not_believed"] == []
            code, _, err = await made.roles.command(
                "delete", "workloadgroup", "payments", "-n", "shop", "--control", made.url
            )
            assert code == 0, err

            async def gone() -> bool:
                return await made.endpoints("payments") == []

            await until("its end", gone)
        flags = ("--labels", "app=payments", "--addresses", "10.7.0.0/16", "--workload", "p-1")
        given = await made.token("payments", *flags)
        async with made.feed(given, "p-1", labels="app=payments", address="10.7.0.1"):
            (one,) = await made.endpoints("payments")
            assert one["address"] == "10.7.0.1"
            session, url = made.session, f"{made.url}/fairlead/v1/tokens"
            async with session.delete(f"{url}/{given.split('_')[1]}?withdraw") as answer:
                assert answer.status == 204

            async def cut() -> bool:
                return not await made.member("p-1")

            await until("the end of a feed whose token was revoked", cut)
        async with made.feed(given, "p-1") as told:
            assert told[0].startswith("401 ")
        code, _, err = await made.roles.command("token", "create", "--labels", "a b=c", "--control", made.url)
        assert code == 1 and "labels" in err


async def test_who_took_a_name_before_it_was_declared_as_anothers_is_cut_off_and_gets_none_of_its_keys(
    tmp_path: Path,
) -> None:
    """Who a stream is was asked when it connected; the declaration that comes later gave its keys to whoever was there
    under that name."""
    async with mesh(tmp_path) as made:
        low, edge = await made.token("batch"), await made.token("edge")
        query = {"role": "gateway", "namespace": "shop", "workload": "edge-9"}
        bearer = {"Authorization": f"Bearer {low}"}
        async with made.session.get(f"{made.url}/fairlead/v1/feed", params=query, headers=bearer) as answer:
            assert answer.status == 200
            while b'"set"' not in await answer.content.readline():
                pass
            await made.apply(DECLARED_LATER)
            rest = await asyncio.wait_for(answer.content.read(), 10.0)
        assert b"THE-KEY" not in rest and b"tls.key" not in rest
        assert "edge-9 is cut off" in made.control.log
        async with made.feed(low, "edge-9", role="gateway") as told:
            assert told[0].startswith("403 ")
        async with made.feed(edge, "edge-9", role="gateway") as told:
            assert any("tls.key" in line for line in told)


async def test_who_takes_a_name_first_loses_it_to_whom_it_was_given(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made:
        low, own = await made.token("batch"), await made.token("payments", "--workload", "payments-7")
        other = await made.token("payments")
        async with made.feed(low, "payments-7"):
            async with made.feed(other, "payments-7") as told:
                assert told[0].startswith("403 "), "of two to whom it was not given, who came first has it"
            async with made.feed(own, "payments-7", address="127.0.0.5") as told:
                assert '"set"' in told[-1]
                assert "payments-7 is cut off" in made.control.log
                async with made.feed(low, "payments-7") as told:
                    assert told[0].startswith("403 ")
                    assert "runs as service account payments" in told[0]
