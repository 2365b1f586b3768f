"""`fairlead gateway` as a process: servers by port and name, TLS ended and passed on, renewal, changes, workers."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.e2e.roles import App, Role, Roles, apps, roles_in, static_service, until
from tests.e2e.test_mesh import shop
from tests.servers import free_ports

pytestmark = pytest.mark.asyncio


def services(web: int, db: int) -> str:
    return static_service("web", "http", 80, web) + "---" + static_service("db", "tls", 5432, db)


GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
    - port: {number: 80, name: http, protocol: HTTP}
      hosts: [shop.example]
      tls: {httpsRedirect: true}
    - port: {number: 8080, name: plain, protocol: HTTP}
      hosts: ["*.example"]
    - port: {number: 443, name: https, protocol: HTTPS}
      hosts: [shop.example]
      tls: {mode: SIMPLE, credentialName: shop}
    - port: {number: 443, name: mutual, protocol: HTTPS}
      hosts: [admin.example]
      tls: {mode: MUTUAL, credentialName: admin}
    - port: {number: 443, name: db, protocol: TLS}
      hosts: [db.example]
      tls: {mode: PASSTHROUGH}
"""
RULES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [shop.example, admin.example, plain.example]
  gateways: [edge]
  http: [{route: [{destination: {host: web}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db}
spec:
  hosts: [db.example]
  gateways: [edge]
  tls: [{match: [{sniHosts: [db.example]}], route: [{destination: {host: db}}]}]
"""
QUIET = ("--admin", "127.0.0.1:0", "--health", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
PORTS = ("--map", "80=0", "--map", "8080=0", "--map", "443=0", "--map", "9090=0")


def secret(name: str, certificate: tuple[str, str], authorities: str = "") -> str:
    data = {"tls.crt": certificate[0], "tls.key": certificate[1], **({"ca.crt": authorities} if authorities else {})}
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    return f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ndata: {json.dumps(encoded)}\n"


class Edge:
    """A gateway, its manifests, and a client of it."""

    def __init__(self, roles: Roles, authority: Authority) -> None:
        self.folder = roles.folder / "manifests"
        self.folder.mkdir()
        self.roles = roles
        self.authority = authority
        self.role: Role

    def write(self, name: str, text: str) -> None:
        """At once, so that nothing half-written is read."""
        (self.folder / f".{name}").write_text(text)
        (self.folder / f".{name}").rename(self.folder / f"{name}.yaml")

    async def start(self, web: App, db: int, *flags: str) -> None:
        self.write("services", services(web.port, db))
        self.write("gateway", GATEWAY)
        self.write("rules", RULES)
        self.write("shop", secret("shop", self.authority.issue("shop.example")))
        self.write("admin", secret("admin", self.authority.issue("admin.example"), self.authority.pem))
        self.role = await self.roles.start("gateway", "-f", str(self.folder), "--labels", "istio=ingressgateway",
                                           *PORTS, *QUIET, *flags)  # fmt: skip

    def port(self, number: int) -> int:
        return int(self.role.at[f"gateway:{number}"].rpartition(":")[2])

    async def listeners(self) -> dict[str, str]:
        """As the admin port has them now."""
        return json.loads(await self.get(int(self.role.at["admin"].rpartition(":")[2]), "localhost", "/listeners"))  # type: ignore[no-any-return]

    async def get(self, port: int, host: str, path: str = "/", tls: ssl.SSLContext | None = None, sni: str = "") -> str:
        head, _, body = (await self.raw(port, host, path, tls, sni)).partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 "), head
        return body

    async def raw(self, port: int, host: str, path: str = "/", tls: ssl.SSLContext | None = None, sni: str = "") -> str:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls, server_hostname=(sni or host) if tls is not None else None
        )
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return (await reader.read()).decode()
        finally:
            writer.close()

    def trusting(self, certificate: tuple[str, str] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.pem)
        if certificate is not None:
            path = self.roles.folder / "client.pem"
            path.write_text("".join(certificate))
            context.load_cert_chain(path)
        return context


async def tls_echo(authority: Authority, folder: Path) -> tuple[asyncio.Server, int]:
    """An app that speaks TLS itself, and says back what it hears."""
    certificate = authority.issue("db.example")
    (folder / "db.pem").write_text("".join(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "db.pem")

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    return server, server.sockets[0].getsockname()[1]


async def said(port: int, name: str, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    writer.write(b"hello\n")
    answer = await reader.readline()
    writer.close()
    return answer


@pytest.mark.parametrize("workers", [1, 2])
async def test_servers_by_port_and_name(tmp_path: Path, workers: int) -> None:
    authority = Authority()
    server, db = await tls_echo(authority, tmp_path)
    async with roles_in(tmp_path) as roles, apps("web") as (web,), server:
        edge = Edge(roles, authority)
        flags: tuple[str, ...] = ()
        if workers > 1:
            moved = zip((80, 8080, 443, 9090), free_ports(4), strict=True)
            flags = ("--workers", str(workers), *(f"--map={a}={b}" for a, b in moved))
        await edge.start(web, db, *flags)
        answer = await edge.raw(edge.port(80), "shop.example", "/a?b=c")
        assert answer.startswith("HTTP/1.1 301 ") and "location: https://shop.example/a?b=c\r\n" in answer
        told = json.loads(await edge.get(edge.port(8080), "plain.example", "/x"))
        assert (told["app"], told["path"]) == ("web", "/x")
        assert told["headers"]["x-forwarded-for"] == "127.0.0.1" and told["headers"]["x-forwarded-proto"] == "http"
        assert (await edge.raw(edge.port(8080), "other.example")).startswith("HTTP/1.1 404 ")
        secure = edge.port(443)
        told = json.loads(await edge.get(secure, "shop.example", "/y", edge.trusting()))
        assert told["headers"]["x-forwarded-proto"] == "https"
        answer = await edge.raw(secure, "admin.example", "/", edge.trusting(), "shop.example")
        assert answer.startswith("HTTP/1.1 404 "), "SNI of one server, Host of another"
        known = authority.issue("operator")
        assert json.loads(await edge.get(secure, "admin.example", "/z", edge.trusting(known)))["path"] == "/z"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await edge.raw(secure, "admin.example", "/", edge.trusting())
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await edge.raw(secure, "nobody.example", "/", edge.trusting())
        assert await said(secure, "db.example", edge.trusting()) == b"hello\n", "the app's own TLS"


async def test_a_certificate_is_renewed_without_restart_and_without_touching_connections(tmp_path: Path) -> None:
    authority = Authority()
    async with roles_in(tmp_path) as roles, apps("web") as (web,):
        edge = Edge(roles, authority)
        await edge.start(web, 1)

        async def serial() -> Any:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", edge.port(443), ssl=edge.trusting(), server_hostname="shop.example"
            )
            found = writer.get_extra_info("peercert")["serialNumber"]
            writer.close()
            return found

        before = await serial()
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", edge.port(443), ssl=edge.trusting(), server_hostname="shop.example"
        )
        edge.write("shop", secret("shop", authority.issue("shop.example")))

        async def renewed() -> bool:
            return bool(await serial() != before)

        await until("the renewed certificate", renewed)
        writer.write(b"GET /kept HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 "), "the connection made before goes on"
        writer.close()


async def test_ports_come_and_go_with_the_gateways_and_what_runs_goes_on(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("web") as (web,):
        edge = Edge(roles, Authority())
        await edge.start(web, 1)
        plain = edge.port(8080)
        web.hold = asyncio.Event()
        held = asyncio.ensure_future(edge.get(plain, "plain.example", "/hold"))
        await asyncio.wait_for(web.held.wait(), 30)
        edge.write("gateway", GATEWAY.replace("number: 8080", "number: 9090"))

        async def moved() -> bool:
            at = await edge.listeners()
            return "gateway:9090" in at and "gateway:8080" not in at

        await until("the other port", moved)
        with pytest.raises(ConnectionError):
            await edge.raw(plain, "plain.example")
        other = int((await edge.listeners())["gateway:9090"].rpartition(":")[2])
        assert json.loads(await edge.get(other, "plain.example"))["app"] == "web"
        web.hold.set()
        assert json.loads(await held)["path"] == "/hold"


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_port_that_cannot_be_opened_later_is_told_where_readiness_is_asked_for(
    tmp_path: Path, workers: int
) -> None:
    async with roles_in(tmp_path) as roles, apps("web") as (web,):
        edge = Edge(roles, Authority())
        numbers = dict(zip((80, 8080, 443, 9090), free_ports(4), strict=True))
        flags = [f"--map={a}={b}" for a, b in numbers.items()]
        await edge.start(web, 1, "--workers", str(workers), *flags)
        health = int(edge.role.at["health"].rpartition(":")[2])

        async def ready() -> str:
            return await edge.raw(health, "localhost", "/healthz/ready")

        with socket.socket() as taken:
            taken.bind(("0.0.0.0", numbers[9090]))
            taken.listen()
            edge.write("gateway", GATEWAY.replace("number: 8080", "number: 9090"))

            async def told() -> bool:
                return "gateway: port 9090: it cannot be listened on: " in await ready()

            await until("a word about the port", told)
            answer = await ready()
            assert answer.startswith("HTTP/1.1 503 ")
            assert answer.count("it cannot be listened on") == 1, "once, though all workers say it"
            admin = int(edge.role.at["admin"].rpartition(":")[2])
            for path in ("/ready", *(("/server_info",) if workers > 1 else ())):
                assert "port 9090: it cannot be listened on" in await edge.raw(admin, "localhost", path)
            edge.write("gateway", GATEWAY)

            async def well() -> bool:
                return (await ready()).startswith("HTTP/1.1 200 ")

            await until("readiness without that port", well)
        assert "gateway:8080" in await edge.listeners() and "gateway:9090" not in await edge.listeners()


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_cannot_be_served_is_told_and_the_rest_is_served(tmp_path: Path, workers: int) -> None:
    async with roles_in(tmp_path) as roles, apps("web") as (web,):
        edge = Edge(roles, Authority())
        flags = [f"--map={a}={b}" for a, b in zip((80, 8080, 443, 9090), free_ports(4), strict=True)]
        await edge.start(web, 1, "--workers", str(workers), *flags)
        (edge.folder / "shop.yaml").unlink()
        edge.write("gateway", GATEWAY.replace("credentialName: shop", "credentialName: gone"))
        health = int(edge.role.at["health"].rpartition(":")[2])

        async def told() -> bool:
            return "there is no Secret default/gone" in await edge.get(health, "localhost", "/healthz/ready")

        await until("a word about the Secret", told)
        assert "there is no Secret default/gone" in edge.role.log
        assert json.loads(await edge.get(edge.port(8080), "plain.example"))["app"] == "web"


INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  annotations: {nginx.ingress.kubernetes.io/rewrite-target: /$1}
spec:
  ingressClassName: istio
  tls: [{hosts: [shop.example], secretName: shop}]
  rules:
    - host: shop.example
      http:
        paths:
          - {path: "/app/(.*)", pathType: ImplementationSpecific, backend: {service: {name: web, port: {name: http}}}}
"""


async def test_an_ingress_is_served_as_it_is_with_its_certificate(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("web") as (web,):
        edge = Edge(roles, Authority())
        folder = edge.folder
        edge.write("services", services(web.port, 1))
        edge.write("ingress", INGRESS)
        edge.write("shop", secret("shop", edge.authority.issue("shop.example")))
        edge.role = await roles.start("gateway", "-f", str(folder), "--labels", "istio=ingressgateway", *PORTS, *QUIET)
        for tls in (None, edge.trusting()):
            told = json.loads(await edge.get(edge.port(443 if tls else 80), "shop.example", "/app/x?y=z", tls))
            assert (told["app"], told["path"]) == ("web", "/x?y=z")
        assert (await edge.raw(edge.port(80), "shop.example", "/other")).startswith("HTTP/1.1 404 ")


async def test_without_a_gateway_of_its_own_it_is_not_ready_and_says_so_and_is_when_there_is_one(
    tmp_path: Path,
) -> None:
    async with roles_in(tmp_path) as roles, apps("web") as (web,):
        folder = tmp_path / "manifests"
        folder.mkdir()
        (folder / "services.yaml").write_text(services(web.port, 1))
        role = await roles.start("gateway", "-f", str(folder), "--labels", "istio=other", *PORTS, *QUIET, wait=False)

        async def told() -> bool:
            return "not ready yet: gateway: no Gateway selects this workload yet" in role.log

        await until("a word about what is missing", told)
        assert not role.lines
        (folder / "gateway.yaml").write_text(GATEWAY.replace("istio: ingressgateway", "istio: other"))
        await role.ready()
        assert "gateway:8080" in role.at


async def test_a_gateway_without_labels_is_a_mistake_and_without_gateways_not_ready(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        (tmp_path / "m.yaml").write_text(
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1}]}\n"
        )
        code, _, told = await roles.command("gateway", "-f", str(tmp_path / "m.yaml"))
        assert code == 2 and "--labels" in told and "istio=ingressgateway" in told
        code, _, told = await roles.command("gateway", "-f", "m.yaml", "--labels", "a=b", "--map", "80")
        assert code == 2 and "--map '80': expected a Gateway's port" in told
        code, _, told = await roles.command(
            "gateway", "-f", "m.yaml", "--labels", "a=b", "--map", "80=0", "--workers", "2"
        )
        assert code == 2 and "each worker would have a port of its own" in told


MESH_GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
    - port: {number: 443, name: https, protocol: HTTPS}
      hosts: [shop.example]
      tls: {mode: SIMPLE, credentialName: shop}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [shop.example]
  gateways: [edge]
  http: [{route: [{destination: {host: web}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: gateway-only}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {istio: ingressgateway}}}]}]
"""


async def test_a_gateway_of_the_mesh_gets_its_secrets_and_reaches_apps_by_mutual_tls_as_policy_has_it(
    tmp_path: Path,
) -> None:
    authority = Authority()
    async with shop(tmp_path) as made:
        await made.apply(MESH_GATEWAY)
        in_edge = secret("shop", authority.issue("shop.example")).replace(
            "{name: shop}", "{name: shop, namespace: edge}"
        )
        await made.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: edge}\n---\n" + in_edge)
        code, token, err = await made.roles.command(
            "token",
            "create",
            "-n",
            "edge",
            "--service-account",
            "gateway",
            "--labels",
            "istio=ingressgateway",
            "--control",
            made.url,
        )
        assert code == 0, err
        (tmp_path / "gateway.token").write_text(token)
        gateway = await made.roles.start(
            "gateway", "--workload", "edge/gateway-1", "--labels", "istio=ingressgateway", "--control", made.url,
            "--token-file", str(tmp_path / "gateway.token"), "--data-dir", str(tmp_path / "gateway"), "--map", "443=0",
            "--address", "127.0.0.1", *QUIET,
        )  # fmt: skip
        port = int(gateway.at["gateway:443"].rpartition(":")[2])
        context = ssl.create_default_context(cadata=authority.pem)

        async def answered() -> Any:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="shop.example"
            )
            writer.write(b"GET /in HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
            text = (await reader.read()).decode()
            writer.close()
            return text if text.startswith("HTTP/1.1 200 ") else None

        text = await until("an answer through the gateway", answered)
        told = json.loads(text.partition("\r\n\r\n")[2])
        assert told["path"] == "/in"
        shown = told["headers"]["x-forwarded-client-cert"]
        assert "URI=spiffe://cluster.local/ns/edge/sa/gateway" in shown, "the app's sidecar has seen who the gateway is"
        for name in ("web", "friend"):  # a sidecar's disk has no Secret, a gateway's those that its Gateways name
            kept = b"".join(path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file())
            assert b"tls.key" not in kept
        assert b"tls.key" in b"".join(path.read_bytes() for path in (tmp_path / "gateway").iterdir() if path.is_file())


INGRESS_OF_SHOP = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: istio
  tls: [{hosts: [ingress.example], secretName: of-the-ingress}]
  defaultBackend: {service: {name: web, port: {number: 80}}}
"""


def own_secrets(folder: Path) -> set[str]:
    """What of Secrets stands on a proxy's disk."""
    kept = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file()).decode()
    return set(re.findall(r"object/secrets/([a-z0-9/-]+)", kept))


async def test_a_gateway_gets_exactly_the_secrets_that_its_rules_name_and_the_set_follows_them(tmp_path: Path) -> None:
    authority = Authority()
    async with shop(tmp_path) as made:
        namespaces = "apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n"
        texts = [namespaces, MESH_GATEWAY]
        for name, where in (("shop", "istio-system"), ("other", "istio-system"), ("shop", "default"),
                            ("of-the-ingress", "default"), ("not-named", "default")):  # fmt: skip
            host = {"of-the-ingress": "ingress.example"}.get(name, "shop.example")
            text = secret(name, authority.issue(host))
            texts.append(text.replace(f"{{name: {name}}}", f"{{name: {name}, namespace: {where}}}"))
        await made.apply("\n---\n".join(texts))
        code, token, err = await made.roles.command(
            "token",
            "create",
            "-n",
            "istio-system",
            "--service-account",
            "gateway",
            "--labels",
            "istio=ingressgateway",
            "--control",
            made.url,
        )
        assert code == 0, err
        (tmp_path / "gateway.token").write_text(token)
        folder = tmp_path / "gateway"
        gateway = await made.roles.start(
            "gateway", "--workload", "istio-system/gateway-1", "--labels", "istio=ingressgateway", "--control",
            made.url, "--token-file", str(tmp_path / "gateway.token"), "--data-dir", str(folder), "--map", "443=0",
            "--map", "80=0", "--address", "127.0.0.1", *QUIET,
        )  # fmt: skip
        port = int(gateway.at["gateway:443"].rpartition(":")[2])

        async def holds(*names: str) -> None:
            async def told() -> bool:
                return own_secrets(folder) == set(names)

            await until(f"exactly {names}", told)

        async def answers(name: str) -> bool:
            context = ssl.create_default_context(cadata=authority.pem)
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
            except (ssl.SSLError, ConnectionError):
                return False
            writer.close()
            return True

        await holds("istio-system/shop")
        assert await answers("shop.example")
        await made.apply(INGRESS_OF_SHOP)
        await holds("istio-system/shop", "default/of-the-ingress")
        await until("the certificate of an Ingress of another namespace", lambda: answers("ingress.example"))
        await made.apply(MESH_GATEWAY.replace("credentialName: shop", "credentialName: other"))
        await holds("istio-system/other", "default/of-the-ingress")
        code, _, err = await made.roles.command("delete", "ingress", "web", "--control", made.url)
        assert code == 0, err
        await holds("istio-system/other")
        assert made.control is not None
        await made.control.stop()
        await made.start_control()  # another epoch: all anew
        await made.apply(MESH_GATEWAY)
        await holds("istio-system/shop")
        for name in ("web", "friend", "stranger"):
            assert not own_secrets(tmp_path / name)
