"""Shell: `fairlead mtls`: who still comes in plaintext, and the switch to STRICT."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any
from urllib.parse import urlencode

from ..registry.names import split_full_name
from .api_client import ApiClient, ApiError, UnreachableError
from .cli_client import failed, print_columns
from .plaintext import FORCE, age
from .settings import SettingError

API, KIND = "security.istio.io/v1", "PeerAuthentication"
_NAME = re.compile(r"[^a-z0-9-]+")


def where(text: str) -> tuple[str, str]:
    """(namespace, workload or empty) of NS[/WORKLOAD]."""
    if "/" not in text:
        return text, ""
    return split_full_name(text)


def _asked(options: Any, ask: Any) -> int:
    try:
        code: int = ask(ApiClient.of(options))
    except ApiError as error:
        return failed(str(error))
    except (UnreachableError, SettingError, ValueError) as error:
        return failed(str(error))
    return code


def show(options: Any) -> int:
    """Exit 1 with --check where anybody would be refused by STRICT."""

    def ask(client: ApiClient) -> int:
        namespace, workload = where(options.of) if options.of else ("", "")
        query = urlencode({"namespace": namespace, "workload": workload})
        rows = client.call("GET", f"/fairlead/v1/mtls?{query}")["entries"]
        blocking = sum(1 for row in rows if row["blocks"])
        if options.output == "json":
            print(json.dumps(rows, indent=2))
        elif not rows:
            print("nobody comes in plaintext, as far as sidecars have told")
        else:
            lines = [["DESTINATION", "PORT", "SOURCE", "ADDRESS", "CONNECTIONS", "REFUSED", "LAST", "MODE", "BLOCKS"]]
            for row in rows:
                last = f"{age(time.time() - row['last_seen'])} ago"
                port, address = str(row["port"] or "-"), row["address"] or "others"
                lines.append([row["destination"], port, row["source"] or "-", address,
                              str(row["connections"]), str(row["refused"]), last, row["mode"],
                              "yes" if row["blocks"] else "no"])  # fmt: skip
            print_columns(lines)
        return 1 if options.check and blocking else 0

    return _asked(options, ask)


def strict(options: Any) -> int:
    """Patches the object in force for the namespace or the workload, the oldest of its level; else makes one."""

    def ask(client: ApiClient) -> int:
        namespace, workload = where(options.of)
        _check_namespace(client, namespace)
        labels = _labels(client, namespace, workload) if workload else {}
        listed = client.call("GET", client.path_of(API, KIND, namespace, "").rstrip("/"))["items"]
        listed.sort(key=lambda one: (one["metadata"].get("creationTimestamp", ""), one["metadata"]["name"]))
        own = next((one for one in listed if _is_for(one, labels)), None)
        change: dict[str, Any] = {"spec": {"mtls": {"mode": "STRICT"}}}
        if options.force:
            change["metadata"] = {"annotations": {FORCE: "true"}}
        if own is not None:
            name = own["metadata"]["name"]
            client.call("PATCH", client.path_of(API, KIND, namespace, name), change, "application/merge-patch+json")
        else:
            name = f"strict-{_NAME.sub('-', workload.lower()).strip('-')}"[:253] if workload else "default"
            change["metadata"] = {**change.get("metadata", {}), "name": name, "namespace": namespace}
            if workload:
                change["spec"]["selector"] = {"matchLabels": labels}
            path = client.path_of(API, KIND, namespace, "").rstrip("/")
            client.call("POST", path, {"apiVersion": API, "kind": KIND, **change})
        print(f"{KIND} {namespace}/{name} is STRICT")
        for one in listed:
            if one is own or (not workload and _selector(one)):
                for told in _looser(one, one is own):
                    print(f"not so {told} of {KIND} {namespace}/{one['metadata']['name']}", file=sys.stderr)
        return 0

    return _asked(options, ask)


def _selector(one: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = ((one.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    return found


def _is_for(one: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether it is of the level asked for: the namespace, or a workload with these labels."""
    selector = _selector(one)
    return bool(selector) == bool(labels) and selector.items() <= labels.items()


def _looser(one: dict[str, Any], own: bool) -> list[str]:
    """Where plaintext is still taken: a workload's own mode, and ports."""
    spec = one.get("spec") or {}
    found = [f"port {port} ({mode.get('mode')})" for port, mode in (spec.get("portLevelMtls") or {}).items()
             if mode.get("mode", "UNSET") not in ("STRICT", "UNSET")]  # fmt: skip
    mode = (spec.get("mtls") or {}).get("mode", "UNSET")
    return found if own or mode in ("STRICT", "UNSET") else [f"the workloads ({mode})", *found]


def _check_namespace(client: ApiClient, namespace: str) -> None:
    """A namespace that nobody is in would be made by the API, and the one that was meant stay as it is."""
    try:
        client.call("GET", client.path_of("v1", "Namespace", "", namespace))
    except ApiError as error:
        members = client.call("GET", "/fairlead/v1/sidecars")["sidecars"]
        if error.code != 404 or any(member["namespace"] == namespace for member in members):
            if error.code != 404:
                raise
            return
        raise SettingError(f"there is no namespace {namespace}, and no sidecar in it: check the name") from error


def _labels(client: ApiClient, namespace: str, workload: str) -> dict[str, str]:
    """What selects the workload. Raises SettingError."""
    found_any = False
    for kind, api in (("Pod", "v1"), ("WorkloadEntry", "networking.istio.io/v1")):
        try:
            found = client.call("GET", client.path_of(api, kind, namespace, workload))
        except ApiError as error:
            if error.code == 404:
                continue
            raise
        found_any = True
        labels = found["metadata"].get("labels") or (found.get("spec") or {}).get("labels") or {}
        if labels:
            return {str(key): str(value) for key, value in labels.items()}
    members = client.call("GET", "/fairlead/v1/sidecars")["sidecars"]
    for member in members:
        if (member["namespace"], member["workload"]) == (namespace, workload):
            found_any = True
            if member["labels"]:
                return dict(member["labels"])
    if not found_any:
        raise SettingError(
            f"there is no workload {namespace}/{workload}: no Pod, WorkloadEntry or sidecar has that name"
        )
    raise SettingError(
        f"{namespace}/{workload} has no labels that a selector could name: label it, or name a namespace"
    )


def forget(options: Any) -> int:
    def ask(client: ApiClient) -> int:
        namespace, workload = where(options.of)
        body = {"namespace": namespace, "workload": workload, "source": options.source or ""}
        gone = client.call("POST", "/fairlead/v1/mtls/forget", body)["forgotten"]
        print(f"{gone} {'entry' if gone == 1 else 'entries'} forgotten", file=sys.stderr)
        return 0

    return _asked(options, ask)
