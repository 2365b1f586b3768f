"""Control's authority in its folder: made once, private, loaded again; what is damaged is named."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from fairlead.control.authority_files import CaFiles, Issuer, open_authority
from fairlead.control.rotation import RotationError
from fairlead.mesh import trust
from fairlead.mesh.authority import Authority
from fairlead.mesh.csr import make as make_csr
from fairlead.mesh.pem import load_chain
from tests.mesh.certificates_made import authority, issued, leaf, material, pem_key, pki

WEB = "spiffe://cluster.local/ns/default/sa/web"
CONTROL = "spiffe://cluster.local/ns/fairlead-system/sa/control"
DEADLINE_S = 20.0


def opened(folder: Path, ttl_s: float = 600.0) -> Issuer:
    return open_authority(folder, "cluster.local", ttl_s)


def test_the_authority_is_made_once_its_key_is_private_and_the_next_start_has_the_same(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert (tmp_path / "ca-key.pem").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"ca-key.pem", "ca.pem"}
    again = opened(tmp_path)
    assert again.roots() == first.roots() == (tmp_path / "ca.pem").read_text()
    assert again.authority.key_pem() == first.authority.key_pem()
    assert "PRIVATE" not in first.roots()


def test_what_is_issued_names_the_identity_and_ends_in_time(tmp_path: Path) -> None:
    issuer, now = opened(tmp_path), time.time()
    told = issuer.issue(make_csr()["csr"], "default", "web", now)
    assert list(told) == ["certificates", "roots", "notAfter", "identity", "serial"]
    certificate = x509.load_pem_x509_certificate(told["certificates"].encode())
    assert told["identity"] == WEB
    assert int(told["serial"], 16) == certificate.serial_number
    assert told["notAfter"] == certificate.not_valid_after_utc.isoformat().replace("+00:00", "Z")
    assert abs(certificate.not_valid_after_utc.timestamp() - now - 600) <= 1
    certificate.verify_directly_issued_by(issuer.authority.certificate)
    assert issuer.identity_of(certificate.public_bytes(Encoding.DER)) == WEB


@pytest.mark.parametrize("csr", ["", "garbage", "-----BEGIN CERTIFICATE REQUEST-----\nä", "\ud800"])
def test_what_is_no_request_is_a_value_error(tmp_path: Path, csr: str) -> None:
    with pytest.raises(ValueError, match="not a certificate request"):
        opened(tmp_path).issue(csr, "default", "web", time.time())


@pytest.mark.parametrize(("lost", "left"), [("ca-key.pem", "ca.pem"), ("ca.pem", "ca-key.pem")])
def test_half_an_authority_is_an_error_that_names_both_files_and_makes_nothing(
    tmp_path: Path, lost: str, left: str
) -> None:
    opened(tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(ValueError, match="restore it") as caught:
        opened(tmp_path)
    assert f"{tmp_path / left} is there but {tmp_path / lost} is not" in str(caught.value)
    assert not (tmp_path / lost).exists()


@pytest.mark.parametrize("damaged", ["ca-key.pem", "ca.pem"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path: Path, damaged: str, content: bytes) -> None:
    opened(tmp_path)
    (tmp_path / damaged).write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read") as caught:
        opened(tmp_path)
    assert str(tmp_path / damaged) in str(caught.value)
    assert (tmp_path / damaged).read_bytes() == content


def test_a_key_of_another_authority_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "ca-key.pem").write_bytes(authority().key_pem())
    with pytest.raises(ValueError, match="does not belong to its certificate"):
        opened(tmp_path)


def test_a_certificate_that_may_not_sign_is_refused(tmp_path: Path) -> None:
    _, chain, key = leaf(authority(), (WEB,))
    (tmp_path / "ca-key.pem").write_text(key)
    (tmp_path / "ca.pem").write_text(chain)
    with pytest.raises(ValueError, match="not an authority's"):
        opened(tmp_path)


def test_a_certificate_that_does_not_say_whether_it_may_sign_is_refused(tmp_path: Path) -> None:
    """As `openssl req -x509` makes one without a configuration of extensions."""
    own = authority()
    key = load_pem_private_key(own.key_pem(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    bare = (
        x509.CertificateBuilder()
        .subject_name(own.certificate.subject)
        .issuer_name(own.certificate.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(own.certificate.not_valid_before_utc)
        .not_valid_after(own.certificate.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "ca-key.pem").write_bytes(own.key_pem())
    (tmp_path / "ca.pem").write_bytes(bare.public_bytes(Encoding.PEM))
    with pytest.raises(ValueError, match="not an authority's"):
        opened(tmp_path)


def test_other_roots_are_given_out_with_ours_and_nothing_else_of_their_file(tmp_path: Path) -> None:
    own = opened(tmp_path).roots()
    one, two = authority("one.example"), authority("two.example")
    mixed = b"# \xff comment\n" + one.certificate_pem() + one.key_pem() + two.certificate_pem()
    (tmp_path / "other-roots.pem").write_bytes(mixed)
    found = opened(tmp_path).roots()
    assert found == own + one.certificate_pem().decode() + two.certificate_pem().decode()
    (tmp_path / "other-roots.pem").write_bytes(b"\n")
    assert opened(tmp_path).roots() == own


@pytest.mark.parametrize(
    "content", [b"garbage", b"\xff", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_other_roots_that_are_none_are_an_error_that_names_their_file(tmp_path: Path, content: bytes) -> None:
    opened(tmp_path)
    (tmp_path / "other-roots.pem").write_bytes(content)
    with pytest.raises(ValueError, match="expected certificates in PEM") as caught:
        opened(tmp_path)
    assert str(tmp_path / "other-roots.pem") in str(caught.value)


def test_where_nothing_can_be_written_it_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none") as caught:
        opened(tmp_path / "none")
    assert caught.value.filename == str(tmp_path / "none" / "ca.pem")


def client(roots: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=roots)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def shaken(server: ssl.SSLContext, context: ssl.SSLContext, name: str) -> tuple[bytes | None, str]:
    """What the server's side saw of the client's certificate, and what it says back after the handshake."""
    seen: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        seen.set_result(tls.getpeercert(binary_form=True))
        writer.write(b"hello")
        writer.close()

    async with asyncio.timeout(DEADLINE_S):
        listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
        async with listener:
            port = listener.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
            said = await reader.read()
            writer.close()
            return await seen, said.decode()


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "control.example"])
async def test_the_api_answers_under_each_of_its_names_to_who_shows_no_certificate(tmp_path: Path, name: str) -> None:
    issuer = opened(tmp_path)
    context = issuer.server_context(["0.0.0.0", "::", "localhost", "127.0.0.1", "control.example", "localhost"])
    assert await shaken(context, client(issuer.roots()), name) == (None, "hello")
    with pytest.raises(ssl.SSLCertVerificationError):
        await shaken(context, client(issuer.roots()), "other.example")


@pytest.mark.asyncio
async def test_a_workload_is_known_by_its_certificate_and_a_strangers_ends_the_connection(tmp_path: Path) -> None:
    issuer = opened(tmp_path)
    server = issuer.server_context(["localhost"])
    own = client(issuer.roots())
    made = material(issuer.authority)
    load_chain(own, made.certificates, made.key)
    der, said = await shaken(server, own, "localhost")
    assert der is not None
    assert (issuer.identity_of(der), said) == (WEB, "hello")
    stranger = client(issuer.roots())
    made = material(authority())
    load_chain(stranger, made.certificates, made.key)
    stranger.maximum_version = ssl.TLSVersion.TLSv1_2  # where the server's refusal is part of the handshake
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shaken(server, stranger, "localhost")


def test_a_certificate_without_an_identity_is_a_value_error(tmp_path: Path) -> None:
    der, _, _ = leaf(authority(), ())
    with pytest.raises(ValueError, match=r"SPIFFE|identity|URI"):
        opened(tmp_path).identity_of(der)


# --- rotation --------------------------------------------------------------------------------


def rotated(folder: Path, *steps: str) -> Issuer:
    issuer = opened(folder)
    for step in steps:
        getattr(issuer, step)(time.time())
    return issuer


def signed_by(issuer: Issuer) -> str:
    chain = issuer.issue(make_csr()["csr"], "default", "web", time.time())["certificates"]
    return trust.read_leaf(ssl.PEM_cert_to_DER_cert(chain)).authority_key_id.hex()


def test_a_rotation_goes_through_its_phases_and_a_restart_in_any_of_them_goes_on(tmp_path: Path) -> None:
    issuer = opened(tmp_path)
    old, told = issuer.issuer(), []
    issuer.changed.append(lambda: told.append(issuer.phase))
    issuer.begin(time.time())
    for one in (issuer, opened(tmp_path)):
        assert (one.phase, signed_by(one), one.roots().count("BEGIN")) == ("distributing", old, 2)
        assert [state for _, _, state in one.states()] == ["issuing", "incoming"]
    issuer.activate(time.time())
    new = issuer.issuer()
    assert new != old
    for one in (issuer, opened(tmp_path)):
        assert (one.phase, signed_by(one), one.roots().count("BEGIN")) == ("issuing", new, 2)
        assert [state for _, _, state in one.states()] == ["issuing", "outgoing"]
    issuer.finish(time.time())
    for one in (issuer, opened(tmp_path)):
        assert (one.phase, signed_by(one), one.roots().count("BEGIN")) == ("", new, 1)
    assert told == ["distributing", "issuing", ""]
    assert {path.name for path in tmp_path.iterdir()} == {"ca-key.pem", "ca.pem"}
    assert (tmp_path / "ca-key.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_crash_while_the_old_root_is_dropped_is_made_good_by_the_next_start(tmp_path: Path, done: int) -> None:
    issuer = rotated(tmp_path, "begin", "activate")
    new = issuer.issuer()
    (tmp_path / "rotation.json").write_text('{"phase":"finishing","since":1.0}')
    for name in ("ca-key.pem", "ca.pem")[:done]:
        (tmp_path / f"next-{name}").replace(tmp_path / name)
    again = opened(tmp_path)
    assert (again.phase, signed_by(again)) == ("", new)
    assert {path.name for path in tmp_path.iterdir()} == {"ca-key.pem", "ca.pem"}


def test_steps_out_of_order_are_refused_and_a_rotation_can_be_given_up_before_it_issues(tmp_path: Path) -> None:
    issuer = opened(tmp_path)
    before = issuer.roots()
    for step in (issuer.activate, issuer.finish):
        with pytest.raises(RotationError, match="not begun"):
            step(time.time())
    with pytest.raises(RotationError, match="no rotation is under way"):
        issuer.abort()
    issuer.begin(time.time())
    with pytest.raises(RotationError, match="under way: distributing"):
        issuer.begin(time.time())
    issuer.abort()
    assert (issuer.roots(), opened(tmp_path).roots()) == (before, before)
    issuer = rotated(tmp_path, "begin", "activate")
    with pytest.raises(RotationError, match="are in use: finish this rotation"):
        issuer.abort()


def own_pki(folder: Path, root: Authority, name: str = "", **settings: Any) -> CaFiles:
    """The operator's files; an intermediate below `root`."""
    certificate, key = issued(root, **settings)
    files = CaFiles(folder / f"{name}ca.pem", folder / f"{name}ca-key.pem")
    files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM) + root.certificate_pem())
    files.key.write_bytes(pem_key(key))
    return files


def test_an_intermediate_of_our_own_pki_is_renewed_by_a_reload_and_another_root_needs_a_rotation(
    tmp_path: Path,
) -> None:
    root, data = pki(), tmp_path / "data"
    data.mkdir()
    issuer = open_authority(data, "cluster.local", 600, own_pki(tmp_path, root))
    first = issuer.issuer()
    own_pki(tmp_path, root)
    issuer.reload(time.time())
    assert issuer.issuer() != first, "another intermediate of the same root is taken as it is"
    own_pki(tmp_path, pki(name="Another"))
    with pytest.raises(ValueError, match="a root that workloads do not trust yet"):
        issuer.reload(time.time())
    own_pki(tmp_path, root, ends=-1, begins=-100)
    with pytest.raises(ValueError, match="has expired"):
        issuer.reload(time.time())
    with pytest.raises(ValueError, match="has expired"):
        open_authority(data, "cluster.local", 600, CaFiles(tmp_path / "ca.pem", tmp_path / "ca-key.pem"))


def test_the_root_of_our_own_pki_is_rotated_with_what_the_operator_puts_there(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    files = own_pki(tmp_path, pki())
    issuer = open_authority(data, "cluster.local", 600, files)
    with pytest.raises(RotationError, match=r"put the new authority of your PKI at .*next-ca.pem"):
        issuer.begin(time.time())
    another = pki(name="Another")
    own_pki(data, another, "next-")
    issuer.begin(time.time())
    issuer.activate(time.time())
    new = issuer.issuer()
    with pytest.raises(RotationError, match="is still of the old root"):
        issuer.finish(time.time())
    for name in ("ca.pem", "ca-key.pem"):
        (tmp_path / name).write_bytes((data / f"next-{name}").read_bytes())
    issuer.finish(time.time())
    again = open_authority(data, "cluster.local", 600, files)
    assert (again.issuer(), again.roots()) == (new, another.certificate_pem().decode())


def test_a_client_of_another_trust_domain_under_the_same_root_is_nobody_here(tmp_path: Path) -> None:
    der, _, _ = leaf(authority(), ("spiffe://other.example/ns/default/sa/web",))
    with pytest.raises(ValueError, match="of another trust domain"):
        opened(tmp_path).identity_of(der)
    der, _, _ = leaf(authority(), ends=-1.0)
    with pytest.raises(ValueError, match="has ended"):
        opened(tmp_path).identity_of(der)
