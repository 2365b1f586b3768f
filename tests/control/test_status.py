"""Refusals in the words and forms of Kubernetes, by which kubectl and client libraries know them."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.control import status
from fairlead.control.status import REASONS, Cause, StatusError


@pytest.mark.parametrize(
    ("error", "code", "reason", "message", "details"),
    [
        (status.not_found("services", "", "web"), 404, "NotFound", 'services "web" not found',
         {"name": "web", "kind": "services"}),
        (status.already_exists("gateways", "networking.istio.io", "g"), 409, "AlreadyExists",
         'gateways.networking.istio.io "g" already exists',
         {"name": "g", "group": "networking.istio.io", "kind": "gateways"}),
        (status.conflict("services", "", "web"), 409, "Conflict",
         'Operation cannot be fulfilled on services "web": the object has been modified; please apply your changes to '
         "the latest version and try again", {"name": "web", "kind": "services"}),
        (status.expired("too old"), 410, "Expired", "too old", None),
        (status.too_large("9", 5), 504, "Timeout", "Timeout: Too large resource version: 9, current: 5",
         {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version", "field": ""}],
          "retryAfterSeconds": 1}),
        (status.bad_request("no"), 400, "BadRequest", "no", None),
        (StatusError(418, "tea"), 418, "", "tea", None),
    ],
)  # fmt: skip
def test_each_refusal_has_its_code_reason_and_words(
    error: StatusError, code: int, reason: str, message: str, details: Any
) -> None:
    body = error.body()
    assert (body["code"], body["reason"], body["message"], body.get("details")) == (code, reason, message, details)
    assert (body["kind"], body["apiVersion"], body["status"]) == ("Status", "v1", "Failure")


def test_what_is_invalid_lists_every_cause_and_one_alone_without_brackets() -> None:
    one, two = Cause("spec.a", "Required value"), Cause("", "all wrong", "X")
    assert status.invalid("Service", "", "w", [one]).message == 'Service "w" is invalid: spec.a: Required value'
    both = status.invalid("Gateway", "g.io", "w", [one, two])
    assert both.message == 'Gateway.g.io "w" is invalid: [spec.a: Required value, all wrong]'
    assert both.body()["details"]["causes"][1] == {"reason": "X", "message": "all wrong", "field": ""}


def test_a_list_can_go_on_where_its_token_is_told() -> None:
    assert status.expired("old", "next").body()["metadata"] == {"continue": "next"}


def test_success_leaves_out_what_is_empty() -> None:
    assert status.success("a", "", "services", "")["details"] == {"name": "a", "kind": "services"}


def test_every_code_that_is_used_has_its_reason_of_apimachinery() -> None:
    assert {code: reason for code, reason in REASONS.items() if code < 500} == {
        400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed",
        406: "NotAcceptable", 408: "Timeout", 409: "Conflict", 410: "Expired", 413: "RequestEntityTooLarge",
        415: "UnsupportedMediaType", 422: "Invalid", 429: "TooManyRequests",
    }  # fmt: skip
