"""The API's TLS context, made anew under its listener."""

from __future__ import annotations

import ssl
import time

import pytest

from fairlead.control.authority_files import server_context
from fairlead.control.server_tls import ServerContext
from fairlead.mesh.authority import Authority
from fairlead.mesh.identity import make
from tests.control.test_authority_files import client, shaken
from tests.mesh.certificates_made import authority

pytestmark = pytest.mark.asyncio


async def test_new_connections_get_the_new_certificate_and_its_clients_roots() -> None:
    signers = [authority(), authority()]
    used: list[Authority] = []

    def build() -> tuple[ssl.SSLContext, float]:
        signer = signers[len(used)]
        used.append(signer)
        key, chain, ends = signer.sign_server(["localhost"], make("cluster.local", "a", "b"), 600, time.time())
        return server_context(chain, key.decode(), signer.roots), ends

    now = [time.time()]
    context = ServerContext(build, lambda: now[0])
    assert (await shaken(context, client(signers[0].roots), "localhost"))[1] == "hello"
    now[0] += 300
    assert (await shaken(context, client(signers[0].roots), "localhost"))[1] == "hello"
    assert len(used) == 1
    now[0] += 101  # two thirds of its life
    assert (await shaken(context, client(signers[1].roots), "localhost"))[1] == "hello"
    with pytest.raises(ssl.SSLCertVerificationError):
        await shaken(context, client(signers[0].roots), "localhost")


async def test_where_it_cannot_be_made_anew_the_old_one_stays() -> None:
    signer = authority()
    made: list[int] = []

    def build() -> tuple[ssl.SSLContext, float]:
        if made:
            raise ValueError("the authority has expired")
        made.append(1)
        key, chain, ends = signer.sign_server(["localhost"], make("cluster.local", "a", "b"), 600, time.time())
        return server_context(chain, key.decode(), signer.roots), ends

    context = ServerContext(build, time.time)
    context.renew()
    assert (await shaken(context, client(signer.roots), "localhost"))[1] == "hello"
