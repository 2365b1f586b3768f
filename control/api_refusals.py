"""Shell: every way for a request to the control API to fail, as a Status; and what is logged of it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from .status import REASONS, StatusError
from .store import ConflictError, StoreError, StoreFullError, StoreTooLargeError, StoreUnavailableError

BODY_BYTES_MAX = 3 << 20
logger = logging.getLogger("fairlead.api")


def refusal_of(error: Exception) -> StatusError:
    """Every way for a request to fail, as a Status."""
    if isinstance(error, StatusError):
        return error
    if isinstance(error, web.HTTPException):
        if error.status == 404:
            return StatusError(404, "the server could not find the requested resource")
        if error.status == 405:
            return StatusError(405, "the server does not allow this method on the requested resource")
        if error.status == 413:
            return StatusError(413, f"the body is too large, limit is {BODY_BYTES_MAX} bytes")
        return StatusError(error.status, error.text or error.reason, reason=REASONS.get(error.status, ""))
    if isinstance(error, (web.RequestPayloadError, HttpProcessingError)):  # as not gzip, though it says so
        return StatusError(400, f"the body cannot be read: {' '.join(str(error).split())[:200]}")
    if isinstance(error, ConflictError):
        return StatusError(409, str(error))
    if isinstance(error, StoreFullError):
        return StatusError(507, str(error), retry_after_s=5)
    if isinstance(error, StoreTooLargeError):
        return StatusError(413, str(error))
    if isinstance(error, StoreUnavailableError):
        return StatusError(503, str(error), retry_after_s=1)
    if isinstance(error, StoreError):
        return StatusError(500, str(error))
    if isinstance(error, RecursionError):
        return StatusError(400, "the request nests too deep")
    if isinstance(error, UnicodeDecodeError):
        return StatusError(400, f"the body is not UTF-8: {error.reason} at byte {error.start}")
    logger.exception("a request failed for a fault of ours")
    return StatusError(500, "an error on the server has prevented the request from succeeding; its log says more")


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def readable(handler: Handler) -> Handler:
    """A handler that answers 400 where the value of a header is not UTF-8: aiohttp leaves such octets in as surrogates,
    which nobody can write again, into a log, a store or an answer; aiohttp itself cannot where it repeats `Expect`."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        for name, value in request.headers.items():
            if not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError:
                    refusal = StatusError(400, f"the value of the header {name} is not UTF-8")
                    body = msgspec.json.encode(refusal.body())
                    return web.Response(body=body, status=400, content_type="application/json")
        return await handler(request)

    return handle


def http_logger() -> logging.Logger:
    """A logger for aiohttp that tells of requests which are not HTTP in one line, without a traceback."""
    made = logging.getLogger("fairlead.http")
    if not made.filters:
        made.addFilter(_one_line)
    return made


def _one_line(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.levelno, record.levelname, record.exc_info = logging.INFO, "INFO", None
        record.msg, record.args = "%s: %s", (record.getMessage(), " ".join(error.message.split())[:200])
    return True
