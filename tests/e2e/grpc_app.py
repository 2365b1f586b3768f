"""A gRPC server of plain octets, without generated code: one method of each kind, and some that fail or wait."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

cancelled = 0


async def echo(request: bytes, context: Any) -> bytes:
    """The request; the metadata `x-ask` comes back in the head and in the trailers."""
    asked = dict(context.invocation_metadata()).get("x-ask", "")
    await context.send_initial_metadata((("x-head", asked),))
    context.set_trailing_metadata((("x-trailer", asked), ("x-raw-bin", b"\0\xff")))
    return request


async def fail(request: bytes, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: ünready")
    return b""


async def wait(request: bytes, context: Any) -> bytes:
    """For ever, or until the call is cancelled, which is counted."""
    global cancelled
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        cancelled += 1
        raise
    return b""


async def cancellations(request: bytes, context: Any) -> bytes:
    return str(cancelled).encode()


async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """As many messages of 1,000 octets as the request says."""
    for number in range(int(request)):
        yield str(number).encode().ljust(1000, b".")


async def total(requests: AsyncIterator[bytes], context: Any) -> bytes:
    size = 0
    async for request in requests:
        size += len(request)
    return str(size).encode()


async def chat(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request[::-1]


async def main(port: int) -> None:
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Wait": grpc.unary_unary_rpc_method_handler(wait),
        "Cancellations": grpc.unary_unary_rpc_method_handler(cancellations),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
