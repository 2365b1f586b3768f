"""Shell: `fairlead check`: what is wrong with a running mesh, a role, or the policies of manifests; exit 1 if so."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from msgspec import to_builtins

from ..dns.explain import question, type_number
from ..mesh.identity import IdentityError
from ..mesh.trust import read_leaf
from ..policy.validate import validate
from ..policy.world import World
from . import check_rows
from .api_client import ApiClient, ApiError, UnreachableError
from .check_rows import ERROR, OK, WARNING, Row
from .cli_offline import live_world, read, style_of
from .settings import give_way

SECOND_LOOK_S = 1.5
"""A sidecar that is behind at this distance is behind; one that takes what was just applied is not."""
ANSWER_S = 5.0
"""Control says after three seconds that its store is silent."""
MARKS = {OK: ("✓", "good"), WARNING: ("!", "warn"), ERROR: ("✗", "bad")}


def check(options: Any) -> int:
    """Exit 0 where nothing is wrong (warnings may stand there), 1 where something is."""
    for name in ("admin", "health", "dns"):  # `off`, as roles know it, may stand in the environment
        setattr(options, name, [at for at in getattr(options, name) if at is not None])
    give_way(options, "control", "filename")
    asked = bool(options.filename or options.control or options.admin or options.health or options.dns)
    controls = [url for text in options.control for url in text.split(",") if url]
    if not asked:
        controls = ["http://127.0.0.1:15010"]
    rows: list[Row] = []
    if options.filename:
        rows += of_manifests(options.filename)
    if controls:
        rows += of_controls(options, controls)
    for where in options.health:
        rows += of_health("roles", where, "/healthz/ready")
    for where in options.admin:
        rows += of_admin(where)
    for where in options.dns:
        rows += of_dns(where, options.dns_name)
    show(options, rows)
    return 1 if any(row.status == ERROR for row in rows) else 0


def show(options: Any, rows: Sequence[Row]) -> None:
    if options.output == "json":
        print(json.dumps(to_builtins(rows), indent=2))
        return
    style, group = style_of(options), ""
    for row in rows:
        if options.output == "short" and row.status == OK:
            continue
        if row.group != group:
            group = row.group
            print(style.paint(group, "strong"))
        mark, kind = MARKS[row.status]
        if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
            mark = {OK: "ok", WARNING: "warning", ERROR: "ERROR"}[row.status]
        for line in style.lines(mark, f" {row.name}: {row.message}", row.remedy, kind, 2):
            print(line)
    counts = [sum(1 for row in rows if row.status == status) for status in (ERROR, WARNING)]
    words = [f"{count} {word}{'' if count == 1 else 's'}" for count, word in zip(counts, (ERROR, WARNING), strict=True)]
    print(style.paint(", ".join(words), "bad" if counts[0] else "warn" if counts[1] else "good"))


def of_manifests(paths: list[str]) -> list[Row]:
    documents, problems = read(paths)
    rows = check_rows.of_reports(validate(documents, problems))
    return rows + check_rows.of_policies(World.load(documents)[0], None)


# --- control, and what it tells of


def of_controls(options: Any, urls: Sequence[str]) -> list[Row]:
    """The control planes one by one, then the mesh as they tell of it together."""
    rows: list[Row] = []
    members: dict[str, dict[str, Any]] = {}
    late: set[str] | None = None
    sources: list[dict[str, Any]] = []
    world: World | None = None
    for url in urls:
        options.control = url
        client = ApiClient.of(options)
        try:
            told = client.call("GET", "/fairlead/v1/status")
            rows.append(Row("control", url, OK, f"answers; version {told['version']}, {told['items']} items"))
        except UnreachableError as error:  # with what to look at
            rows.append(Row("control", url, ERROR, str(error)))
            continue
        except ApiError as error:
            which = {401: "give --token or --token-file", 403: "give the token of somebody who may: an administrator"}
            rows.append(Row("control", url, ERROR, str(error), which.get(error.code, "is it the control API?")))
            continue
        rows += of_readiness(options, url)
        if check_rows.behind(told["sidecars"]):
            time.sleep(SECOND_LOOK_S)
            before = check_rows.behind(told["sidecars"])
            told = client.call("GET", "/fairlead/v1/status")
            late = (late or set()) | (before & check_rows.behind(told["sidecars"]))
        for member in told["sidecars"]:
            members[check_rows.key_of(member)] = member
        sources += [one for one in told["sources"] if one not in sources]
        rows += of_roots(client)
        rows += of_revocations(client)
        try:
            world = live_world(options)[0]
        except (ApiError, UnreachableError) as error:
            rows.append(Row("control", url, ERROR, f"its objects cannot be read: {error}"))
    if members or sources or world is not None:
        now = time.time()
        rows += check_rows.of_sources(sources, now)
        rows += check_rows.of_sidecars(list(members.values()), late or set(), world)
        if world is not None:
            rows += check_rows.of_policies(world, list(members.values()))
    return rows


def of_readiness(options: Any, url: str) -> list[Row]:
    """Control's own checks (its store, its sources), and the certificate that it shows."""
    parts = urlsplit(url)
    rows: list[Row] = []
    if parts.scheme == "https":
        try:
            pem = ssl.get_server_certificate((parts.hostname or "", parts.port or 443), timeout=ANSWER_S)
            leaf = read_leaf(ssl.PEM_cert_to_DER_cert(pem))
            rows.append(check_rows.of_certificate(f"of {url}", leaf.not_before, leaf.not_after, time.time(), True,
                                                  "restart control: it makes a new one"))  # fmt: skip
        except (OSError, ValueError, IdentityError) as error:
            rows.append(Row("certificates", f"of {url}", WARNING, f"cannot be read: {error}"))
    context = ssl.create_default_context(cafile=options.ca or None) if parts.scheme == "https" else None
    status, text = fetch((parts.hostname or "", parts.port or 80), "/readyz?verbose", context)
    for line in text.splitlines():
        if line.startswith("[-]"):
            name, _, why = line[3:].partition(" failed: ")
            rows.append(Row("control", f"{url} {name}", ERROR, why or "failed"))
    if status not in (200, 503):
        rows.append(Row("control", f"{url} /readyz", ERROR, text or f"status {status}"))
    return rows


def of_roots(client: ApiClient) -> list[Row]:
    """The roots of the mesh's authority."""
    rows = []
    try:
        pem = str(client.call("GET", "/fairlead/v1/roots")["roots"])
    except (ApiError, UnreachableError) as error:
        return [Row("certificates", "roots", WARNING, str(error))]
    end = "-----END CERTIFICATE-----"
    for number, part in enumerate((text for text in pem.split(end) if "BEGIN" in text), 1):
        try:
            leaf = read_leaf(ssl.PEM_cert_to_DER_cert(part[part.index("-----BEGIN") :] + end))
        except (ValueError, IdentityError) as error:
            rows.append(Row("certificates", f"root {number}", WARNING, f"cannot be read: {error}"))
            continue
        rows.append(check_rows.of_certificate(f"root {number}", leaf.not_before, leaf.not_after, time.time(), False,
                                              "a new root is needed before that: see README.md"))  # fmt: skip
    return rows


def of_revocations(client: ApiClient) -> list[Row]:
    """Nothing where who asks may not see it, or control is older."""
    try:
        return check_rows.of_revocations(client.call("GET", "/fairlead/v1/certs/revocations"))
    except (ApiError, UnreachableError, KeyError, TypeError):
        return []


# --- roles by their own ports


def fetch(at: tuple[str, int], path: str, context: ssl.SSLContext | None = None) -> tuple[int, str]:
    """(status, text); status 0: no answer, and why."""
    host, port = at
    host = "127.0.0.1" if host == "0.0.0.0" else host
    connection: http.client.HTTPConnection = (
        http.client.HTTPSConnection(host, port, timeout=ANSWER_S, context=context)
        if context is not None
        else http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(1 << 20).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return 0, f"no answer: {error or type(error).__name__}"
    finally:
        connection.close()


def of_health(group: str, at: tuple[str, int], path: str) -> list[Row]:
    """A role's readiness, with what it notes beside it (a source away, no connection to control)."""
    name = f"{at[0]}:{at[1]}"
    status, text = fetch(at, path)
    first, *more = text.splitlines() or [""]
    if status != 200:
        return [Row(group, name, ERROR, f"not ready: {text}" if status else text, "see its log")]
    notes = [line.removeprefix("note: ") for line in more if line.startswith("note: ")]
    return [Row(group, name, OK, first or "ready"), *(Row(group, name, WARNING, note) for note in notes)]


def of_admin(at: tuple[str, int]) -> list[Row]:
    """A sidecar or gateway by its admin port: readiness, certificate, checks of its app."""
    rows = of_health("roles", at, "/ready")
    if rows[0].message.startswith("no answer"):
        return rows
    name = f"{at[0]}:{at[1]}"
    status, text = fetch(at, "/certs")
    if status == 200:
        told = json.loads(text)
        who = str(told.get("identity") or name)
        rows.append(check_rows.of_certificate(who, told["issued"], told["ends"], time.time(), True,
                                              "it is not renewed: see the role's log and its token"))  # fmt: skip
    elif status == 404:
        rows.append(Row("certificates", name, WARNING, text or "no certificate yet", "no mutual TLS without it"))
    status, text = fetch(at, "/healthchecks")
    if status == 200 and not (told := json.loads(text))["ready"]:
        rows.append(Row("roles", f"app of {name}", WARNING, f"not ready: {told['why']}"))
    return rows


def of_dns(at: tuple[str, int], names: Sequence[str]) -> list[Row]:
    """Whether a DNS server answers for its zone, over UDP and TCP, and for each of `names`."""
    rows, where = [], f"{at[0]}:{at[1]}"
    for way, ask in (("UDP", over_udp), ("TCP", over_tcp)):
        rows.append(_asked(f"{where} over {way}", at, ask, "dns-version.cluster.local", "TXT"))
    rows += [_asked(f"{where} {name}", at, over_udp, name, "A") for name in names]
    return rows


Ask = Callable[[tuple[str, int], bytes], bytes]


def _asked(label: str, at: tuple[str, int], ask: Ask, name: str, rtype: str) -> Row:
    began = time.monotonic()
    try:
        reply = ask(at, question(name, type_number(rtype)))
    except (OSError, ValueError) as error:
        return Row("dns", label, ERROR, f"no answer to {name} {rtype}: {error or type(error).__name__}",
                   "see that `fairlead dns` runs there")  # fmt: skip
    took = 1000 * (time.monotonic() - began)
    rcode, count = reply[3] & 15, int.from_bytes(reply[6:8], "big")
    word = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}.get(rcode, f"RCODE {rcode}")
    said = f"{name} {rtype}: {word}, {count} {'answer' if count == 1 else 'answers'} in {took:.1f} ms"
    if rcode or not count:
        return Row("dns", label, ERROR, said, f"`fairlead dns query {name} {rtype}` says why")
    return Row("dns", label, OK, said)


def over_udp(at: tuple[str, int], octets: bytes) -> bytes:
    family = socket.AF_INET6 if ":" in at[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(ANSWER_S)
        client.connect(at)
        client.send(octets)
        return _whole(client.recv(65535))


def over_tcp(at: tuple[str, int], octets: bytes) -> bytes:
    with socket.create_connection(at, ANSWER_S) as client:
        client.sendall(len(octets).to_bytes(2, "big") + octets)
        data = b""
        while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
            more = client.recv(65535)
            if not more:
                raise OSError("the connection ended without an answer")
            data += more
        return _whole(data[2:])


def _whole(reply: bytes) -> bytes:
    if len(reply) < 12:
        raise OSError("the answer is cut off")
    return reply
