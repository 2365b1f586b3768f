"""Refusals as Kubernetes Status objects: one exception, and a constructor for each reason.

Reasons, codes and wording follow apimachinery's `errors` package, because kubectl and client libraries read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    408: "Timeout",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
    507: "InsufficientStorage",
}


TOLD_MAX = 100
"""So many mistakes are told of one object: an answer must not be many times its request."""


class Cause(Struct, frozen=True):
    """One thing that is wrong. `field` is a path such as `spec.http[0].route[0].weight`."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


class StatusError(Exception):
    """A request that is refused; `body()` is the Status object that says so."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str = "",
        name: str = "",
        group: str = "",
        kind: str = "",
        causes: Sequence[Cause] = (),
        retry_after_s: int = 0,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """`metadata`: of the Status, as of a list (`continue`)."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or REASONS.get(code, "")
        self.retry_after_s = retry_after_s
        self._metadata = metadata or {}
        self._details: dict[str, Any] = {"name": name, "group": group, "kind": kind}
        self._details["causes"] = [
            {"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes[:TOLD_MAX]
        ]
        self._details["retryAfterSeconds"] = retry_after_s

    def body(self) -> dict[str, Any]:
        hidden: tuple[str, ...] = ()
        if self.reason == "Invalid" and not self._details["causes"]:
            hidden = ("name", "kind", "group")  # with them kubectl does not show the message
        details = {key: value for key, value in self._details.items() if value and key not in hidden}
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self._metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": details} if details else {}),
            "code": self.code,
        }


def listing(texts: Sequence[str], of: int = 0) -> str:
    """These, or the first of them and how many more there are (`of` in all)."""
    more = max(of, len(texts)) - TOLD_MAX
    return ", ".join(texts[:TOLD_MAX]) + (f", and {more} more" if more > 0 else "")


def qualified(name: str, group: str) -> str:
    """`virtualservices.networking.istio.io`; of the core group just `services`."""
    return f"{name}.{group}" if group else name


def success(name: str, group: str, resource: str, uid: str) -> dict[str, Any]:
    """The answer to a deletion that is complete."""
    details = {"name": name, "group": group, "kind": resource, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }


def bad_request(message: str) -> StatusError:
    return StatusError(400, message)


def not_found(resource: str, group: str, name: str) -> StatusError:
    return StatusError(404, f'{qualified(resource, group)} "{name}" not found', name=name, group=group, kind=resource)


def no_such_path() -> StatusError:
    return StatusError(404, "the server could not find the requested resource")


def already_exists(resource: str, group: str, name: str) -> StatusError:
    message = f'{qualified(resource, group)} "{name}" already exists'
    return StatusError(409, message, reason="AlreadyExists", name=name, group=group, kind=resource)


def conflict(resource: str, group: str, name: str, why: str = "") -> StatusError:
    why = why or ("the object has been modified; please apply your changes to the latest version and try again")
    message = f'Operation cannot be fulfilled on {qualified(resource, group)} "{name}": {why}'
    return StatusError(409, message, name=name, group=group, kind=resource)


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> StatusError:
    listed = [f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in causes[: TOLD_MAX + 1]]
    text = listed[0] if len(listed) == 1 else f"[{listing(listed, len(causes))}]"
    message = f'{qualified(kind, group)} "{name}" is invalid: {text}'
    return StatusError(422, message, name=name, group=group, kind=kind, causes=causes)


def expired(message: str, continue_: str = "") -> StatusError:
    """`continue_`: a token by which the list can go on all the same, with what is there now."""
    return StatusError(410, message, metadata={"continue": continue_} if continue_ else None)


def too_large(asked: str, current: int) -> StatusError:
    """A version that this control plane has not reached; clients come back, or list anew."""
    told = f"Too large resource version: {asked}, current: {current}"
    causes = [Cause("", "Too large resource version", "ResourceVersionTooLarge")]
    return StatusError(504, f"Timeout: {told}", causes=causes, retry_after_s=1)
