"""Shell: `fairlead dns query`: an answer and why, from manifests, a live mesh, or a running DNS server."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import time
from typing import Any
from urllib.parse import quote

from ..dns.engine import DnsOptions, Engine
from ..dns.explain import explain
from .cli_client import failed, print_columns
from .settings import REGISTRIES, SettingError, cause, give_way, why


def query(options: Any) -> int:
    """Exit 0 where there is an answer, 1 where there is none."""
    give_way(options, "control", "filename", "server", *REGISTRIES)
    direct = any(getattr(options, name) for name in REGISTRIES)
    if [bool(options.filename or direct), bool(options.control), options.server is not None].count(True) != 1:
        raise SettingError(
            "give one of -f PATH (and --consul, --etcd or another source), --control URL, and --server HOST:PORT "
            "(a DNS server's --admin)"
        )
    if options.type.upper() == "PTR":
        with contextlib.suppress(ValueError):  # a name
            options.name = ipaddress.ip_address(options.name).reverse_pointer
    try:
        told = _of_server(options) if options.server is not None else _of_world(options)
    except (ValueError, OSError) as error:
        return failed(why(error))
    if options.output == "json":
        print(json.dumps(told, indent=2))
    else:
        _show(told)
    return 0 if told["status"] == "FORWARDED" or (told["status"] == "NOERROR" and told["answer"]) else 1


def _of_world(options: Any) -> dict[str, Any]:
    from .api_client import ApiError, UnreachableError
    from .cli_offline import load_world

    try:
        world, _ = load_world(options)
    except (ApiError, UnreachableError) as error:
        raise OSError(str(error)) from None
    engine = Engine(
        DnsOptions(
            cluster_domain=world.resources.mesh.spec.cluster_domain,
            consul_domain=options.consul_domain.strip("."),
            autopath=options.autopath,
        ),
        forwards=True,
        everyone=True,
    )
    engine.update(world.snapshot)
    return explain(engine, world.snapshot, options.name, options.type, options.source_ip or "127.0.0.1")


def _of_server(options: Any) -> dict[str, Any]:
    host, port = options.server
    connection = http.client.HTTPConnection(host, port, timeout=10)
    path = f"/dns/query?name={quote(options.name)}&type={quote(options.type)}"
    if options.source_ip:
        path += f"&source={quote(options.source_ip)}"
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        why = f"--server {host}:{port}: {cause(error)}; is it the server's --admin address? --listen is for DNS alone"
        raise OSError(why) from None
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"--server {host}:{port}: {answer.status}: {body.decode('utf-8', 'replace').strip()}")
    told: dict[str, Any] = json.loads(body)
    return told


def _show(told: dict[str, Any]) -> None:
    print(f"{told['name']} {told['type']}: {told['status']}")
    for section in ("answer", "authority", "additional"):
        for line in told[section]:
            print(f"  {section:<10} {line}")
    print("why:")
    for reason in told["why"]:
        print(f"  {reason}")
    for service in told["services"]:
        age = f", confirmed {time.time() - service['confirmedAt']:.0f} s ago" if service["confirmedAt"] else ""
        near = ", nearest first" if service["nearestFirst"] else ""
        state = f" ({service['state']}{age})" if service["state"] else ""
        print(f"  service {service['host']} from {service['source'] or 'manifests'}{state}: {service['kind']}{near}")
        if service["endpoints"]:
            rows = [["    ENDPOINT", "PORT", "READY", "GIVEN", "SOURCE", "WHY NOT"]]
            for one in service["endpoints"]:
                rows.append([
                    f"    {one['address']}", f"{one['port']}{'/' + one['portName'] if one['portName'] else ''}",
                    "yes" if one["ready"] else "no", "yes" if one["given"] else "no", one["source"] or "-", one["why"],
                ])  # fmt: skip
            print_columns(rows)
