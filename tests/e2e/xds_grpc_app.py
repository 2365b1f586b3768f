"""A proxyless gRPC application of one file.

`server ADDRESS`: one method, that says who asks; `plain ADDRESS`: the same without xDS. `client TARGET`: a call for
each line on standard input, the answer or status as one line on standard output.
"""

from __future__ import annotations

import sys
from concurrent import futures

import grpc
import grpc.experimental


def _echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    names = context.auth_context().get("peer_uri_sans") or context.auth_context().get("peer_spiffe_id") or []
    if not names:
        names = context.auth_context().get("x509_subject_alternative_name", [])
    return b"server " + request + b" asked by " + b",".join(names)


def server(address: str, plain: bool) -> None:
    made = grpc.server(futures.ThreadPoolExecutor(4), xds=not plain)
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(_echo)}
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", handlers),))
    if plain:
        made.add_insecure_port(address)
    else:
        fallback = grpc.insecure_server_credentials()
        made.add_secure_port(address, grpc.xds_server_credentials(fallback))
    made.start()
    print("started", flush=True)
    made.wait_for_termination()


def client(target: str) -> None:
    credentials = grpc.xds_channel_credentials(grpc.experimental.insecure_channel_credentials())
    with grpc.secure_channel(target, credentials) as channel:
        call = channel.unary_unary("/test.Test/Echo")
        for line in sys.stdin:
            try:
                print("ok " + call(line.strip().encode(), timeout=5).decode(), flush=True)
            except grpc.RpcError as error:
                print(f"{error.code().name} {error.details()}".replace("\n", " "), flush=True)


if __name__ == "__main__":
    what, where = sys.argv[1:3]
    if what == "client":
        client(where)
    else:
        server(where, what == "plain")
