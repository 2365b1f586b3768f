"""Certificates a second that control issues on one core, and what the time of one is made of.

    bench/certificates.py                 signing alone, the whole path in control, and over its API
    bench/certificates.py --only api      one of them: sign, control, api

Processor time of the process that issues, per certificate, with a request of its own for each (P-256). `sign` is CSR
in, chain out, of the authority; `control` adds its record on disk and the answer, one by one and as many at a time as
control makes together of what is asked for at one time; `api` is `fairlead control` as a process, pinned to one core,
asked over keep-alive HTTP by clients on the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fairlead.mesh.authority import Authority
from fairlead.mesh.identity import make

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT / "build" / "view") not in sys.path:
    sys.path.append(str(ROOT / "build" / "view"))

from bench.machine import CLIENT_CORE, PROXY_CORE, cpu_us  # noqa: E402

KEYS = 200
"""Different requests; each is used again and again."""
ACCOUNTS = 100
"""Identities: one may not ask more often than `certificates_api.ISSUES_PER_MINUTE`."""
CLIENTS = 16


def requests() -> list[bytes]:
    made = []
    for _ in range(KEYS):
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        made.append(builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM))
    return made


def each_us(work: Callable[[int], object], count: int) -> float:
    for number in range(KEYS):
        work(number)
    begun = time.process_time()
    for number in range(count):
        work(number)
    return (time.process_time() - begun) / count * 1e6


def show(what: str, us: float) -> None:
    print(f"{what:<58} {us:8.1f} us {1e6 / us:9.0f} a second", flush=True)


def sign(count: int) -> None:
    csrs, authority = requests(), Authority.create("cluster.local", time.time())
    identity = make("cluster.local", "default", "web")
    scheme, digest = ec.ECDSA(hashes.SHA256()), hashes.SHA256
    loaded = [x509.load_pem_x509_csr(csr) for csr in csrs]
    parts = [(one.public_key(), one.signature, one.tbs_certrequest_bytes) for one in loaded]
    show("sign: CSR in, chain out", each_us(
        lambda n: authority.sign(csrs[n % KEYS], identity, 86400.0, time.time()), count))  # fmt: skip
    show("  of it the library: request read", each_us(lambda n: x509.load_pem_x509_csr(csrs[n % KEYS]), count))
    show("  of it the library: its key read", each_us(lambda n: loaded[n % KEYS].public_key(), count))

    def verify(n: int) -> None:
        key, signature, octets = parts[n % KEYS]
        key.verify(signature, octets, ec.ECDSA(digest()))  # type: ignore[call-arg, arg-type, union-attr]

    show("  of it the library: its signature verified", each_us(verify, count))
    own = ec.generate_private_key(ec.SECP256R1())
    show("  of it the library: one signature made", each_us(lambda _: own.sign(b"x" * 400, scheme), count))


def control(count: int) -> None:
    """CertificatesApi's own path without a socket: an aiohttp request object is played by its least."""
    from fairlead.control.authority_files import open_authority
    from fairlead.control.issued import IssuedLeaf
    from fairlead.control.issued_file import IssuedFile
    from fairlead.control.issuing import TOGETHER_MOST

    csrs = [csr.decode() for csr in requests()]
    with tempfile.TemporaryDirectory() as folder:
        issuer = open_authority(Path(folder), "cluster.local", 86400.0)
        record = IssuedFile(Path(folder) / "issued.jsonl", time.time())

        def some(first: int, together: int) -> None:
            now = time.time()
            numbers = range(first, first + together)
            told = issuer.issue_all([(csrs[n % KEYS], "default", f"web-{n % ACCOUNTS}") for n in numbers], now)
            made = [one for one in told if not isinstance(one, Exception)]
            signer, ends = issuer.issuer(), now + 86400
            record.add([
                IssuedLeaf(one["serial"], one["identity"], f"default/web-{n}", signer, now, ends)
                for one, n in zip(made, numbers, strict=True)
            ])  # fmt: skip
            for one in made:
                msgspec.json.encode(one)  # as the API answers

        for size in (1, TOGETHER_MOST):
            us = each_us(lambda n, size=size: some(n * size, size), count // size) / size  # type: ignore[misc]
            show(f"control: the same with record and answer, {size} at a time", us)
        record.close()


async def _ask(port: int, tokens: list[str], csrs: list[str], count: int) -> int:
    """Raw keep-alive HTTP: the client must not be what is measured."""
    left = iter(range(count))
    done = 0

    async def client() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n in left:
            body = json.dumps({"csr": csrs[n % KEYS], "workload": f"web-{n}"}).encode()
            writer.write(
                b"POST /fairlead/v1/certificates HTTP/1.1\r\nhost: c\r\ncontent-type: application/json\r\n"
                b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n"
                % (tokens[n % ACCOUNTS].encode(), len(body))
                + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            answer = await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", head)[1]))  # type: ignore[index]
            if not head.startswith(b"HTTP/1.1 20"):
                raise SystemExit(f"refused: {answer[:300]!r}")
            done += 1
        writer.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return done


def call(port: int, body: dict[str, Any]) -> Any:
    import urllib.request

    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/fairlead/v1/tokens", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def api(count: int) -> None:
    """`count` is bound by the limit for one identity: 60 a minute."""
    count = min(count, ACCOUNTS * 55)
    csrs = [csr.decode() for csr in requests()]
    with tempfile.TemporaryDirectory() as folder:
        command = ["taskset", "-c", PROXY_CORE, sys.executable, "-P", "-m", "fairlead.control", "control",
                   "--listen", "127.0.0.1:0", "--data-dir", folder]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(":")[2])
            os.sched_setaffinity(0, {int(CLIENT_CORE)})
            tokens = [call(port, {"serviceAccount": f"web-{n}"})["token"] for n in range(ACCOUNTS)]
            before, begun = cpu_us([process.pid]), time.monotonic()
            done = asyncio.run(_ask(port, tokens, csrs, count))
            wall, used = time.monotonic() - begun, cpu_us([process.pid]) - before
            process.send_signal(signal.SIGTERM)
            process.wait()
    show(f"api: {done} over HTTP ({done / wall:.0f} a second by the clock)", used / done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", choices=("sign", "control", "api"))
    parser.add_argument("--count", type=int, default=5000)
    options = parser.parse_args()
    for name, work in (("sign", sign), ("control", control), ("api", api)):
        if options.only in (None, name):
            work(options.count)


if __name__ == "__main__":
    main()
