"""Shell: a small blocking client of the control API, for the command line."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from .settings import SettingError, bearer_token, cause, control_url, meant, why

TIMEOUT_S = 15.0


class ApiError(Exception):
    """The API refused; `status` is the Kubernetes Status object (or as much of one as came)."""

    def __init__(self, code: int, status: dict[str, Any]) -> None:
        super().__init__(str(status.get("message") or f"status {code}"))
        self.code = code
        self.status = status


class UnreachableError(Exception):
    """No answer; the message names the address, the cause and what to look at."""


def remedy(url: str, cause: object) -> str:
    """What to look at where a control API gave no answer, or none that can be trusted."""
    text = str(cause)
    if isinstance(cause, ssl.SSLCertVerificationError):
        if "self-signed" in text or "unable to get" in text:
            return "Give its authority: --ca FILE (control keeps it as DATA-DIR/ca.pem)"
        if "expired" in text or "not yet valid" in text:
            return "Compare the clocks of both hosts; control makes a new certificate when it starts"
        return "Name it as its certificate does, or start control with --tls-names"
    if isinstance(cause, ssl.SSLError) and "WRONG_VERSION_NUMBER" in text:
        return "It does not speak TLS there: http://, or control's --tls-listen (usually port 15012)"
    if url.startswith("http:") and isinstance(cause, (http.client.RemoteDisconnected, ConnectionResetError)):
        return "Does it speak TLS there? Then https:// with --ca FILE"
    return "Does `fairlead control` run there (--control)?"


def warnings_of(headers: Iterable[str]) -> list[str]:
    """The texts of Warning headers (RFC 9111, section 5.5), as Kubernetes' API sends them."""
    found = []
    for header in headers:
        text = header.partition('"')[2].rpartition('"')[0]
        found.append(text.replace('\\"', '"').replace("\\\\", "\\"))
    return found


class ApiClient:
    """One control API by its URL, with an optional bearer token and authorities."""

    def __init__(self, url: str, token: str = "", ca_file: str = "") -> None:
        self.url = control_url(url)
        if self.url.startswith("http+unix:"):
            raise SettingError("--control unix://: for sidecars alone; this verb speaks http or https")
        self._token = token
        self.headers: dict[str, str] = {}
        """Sent with every request."""
        self.warnings: list[str] = []
        """What the server warned of in its last answer."""
        context = None
        if self.url.startswith("https:"):
            try:
                context = ssl.create_default_context(cafile=ca_file or None)
            except (OSError, ssl.SSLError) as error:
                text = "there is no certificate (PEM) in it" if isinstance(error, ssl.SSLError) else cause(error)
                raise SettingError(f"--ca {ca_file}: {text}") from error
        handlers: list[Any] = [urllib.request.HTTPSHandler(context=context)] if context else []
        self._opener = urllib.request.build_opener(*handlers)
        self._resources: list[dict[str, Any]] | None = None

    @classmethod
    def of(cls, options: Any) -> ApiClient:
        token = getattr(options, "token", None) or ""
        if not token and getattr(options, "token_file", None):
            try:
                token = bearer_token(options.token_file)
            except (OSError, ValueError) as error:
                raise SettingError(f"--token-file {options.token_file}: {cause(error)}") from error
        return cls(options.control, token, getattr(options, "ca", None) or "")

    def give_reason(self, reason: str) -> None:
        """Say with every change why it is made."""
        if reason:
            self.headers["Fairlead-Change-Cause"] = quote(reason, safe=" ,.:;/-_()#'!?+=@")

    def force(self, wanted: bool) -> None:
        """Changes may also be such that cut the control API, DNS, their author or clients in plaintext off."""
        if wanted:
            self.headers["Fairlead-Force"] = "true"

    def call(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", accept: str = ""
    ) -> Any:
        """One request; its decoded JSON. Raises ApiError for any status of 400 or more, UnreachableError for none."""
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Accept", accept or "application/json")
        for name, value in self.headers.items():
            request.add_header(name, value)
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", content_type)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                self.warnings = warnings_of(answer.headers.get_all("Warning") or ())
                text = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read()
            try:
                status = json.loads(text)
            except ValueError:
                status = {"message": text[:300].decode("utf-8", "replace").strip()}
            raise ApiError(error.code, status if isinstance(status, dict) else {}) from None
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            found = getattr(error, "reason", error)
            told = why(found) if isinstance(found, BaseException) else found
            raise UnreachableError(f"no answer from control at {self.url}: {told}. {remedy(self.url, found)}") from None
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise UnreachableError(f"{self.url}{path} did not answer JSON: is this the control API?") from None

    def resources(self) -> list[dict[str, Any]]:
        """Every resource of the API: its discovery entry with `groupVersion` beside it."""
        if self._resources is None:
            found = [{**entry, "groupVersion": "v1"} for entry in self.call("GET", "/api/v1").get("resources", [])]
            for group in self.call("GET", "/apis").get("groups", []):
                preferred = group.get("preferredVersion", {}).get("groupVersion")
                for version in [v["groupVersion"] for v in group.get("versions", [])]:
                    listed = self.call("GET", f"/apis/{version}").get("resources", [])
                    found += [{**e, "groupVersion": version, "preferred": version == preferred} for e in listed]
            self._resources = [entry for entry in found if "/" not in entry["name"]]
        return self._resources

    def find(self, word: str) -> dict[str, Any]:
        """The resource that a person means by kind, plural, singular, short name or plural.group."""
        lower = word.lower()
        matching = [
            entry
            for entry in self.resources()
            if lower
            in (
                entry["name"],
                entry["kind"].lower(),
                entry.get("singularName", ""),
                *entry.get("shortNames", []),
                f"{entry['name']}.{entry['groupVersion'].partition('/')[0]}",
            )
        ]
        if not matching:
            words = {entry["name"] for entry in self.resources()}
            near = meant(lower, words | {name for entry in self.resources() for name in entry.get("shortNames", [])})
            known = near or f"; it has {', '.join(sorted(words))}"
            raise SettingError(f"the server has no resource called {word!r}{known}")
        return next((entry for entry in matching if entry.get("preferred")), matching[0])

    def path(self, entry: dict[str, Any], namespace: str | None, name: str = "") -> str:
        version = entry["groupVersion"]
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if entry.get("namespaced") and namespace:
            path += f"/namespaces/{quote(namespace, safe='')}"
        path += f"/{entry['name']}"
        return f"{path}/{quote(name, safe='')}" if name else path

    def path_of(self, api_version: str, kind: str, namespace: str, name: str) -> str:
        """The path of one object by what its manifest says. Raises ApiError 404 where the server has no such kind."""
        for entry in self.resources():
            if entry["groupVersion"] == api_version and entry["kind"] == kind:
                return self.path(entry, namespace or "default", name)
        versions = sorted({entry["groupVersion"] for entry in self.resources() if entry["kind"] == kind})
        if not api_version or not kind:
            told = "apiVersion and kind must both be given, e.g. apiVersion: v1, kind: Service"
        elif versions:
            told = f"apiVersion: the server has no {kind} of {api_version}; it has it of {', '.join(versions)}"
        else:
            told = f"kind: the server has no {kind}{meant(kind, {entry['kind'] for entry in self.resources()})}"
        raise ApiError(404, {"message": told})
