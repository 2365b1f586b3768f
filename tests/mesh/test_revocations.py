"""What control has taken back, as proxies know it."""

from __future__ import annotations

import pytest

from fairlead.mesh.identity import make
from fairlead.mesh.revocations import Revoked, read, serial_of

WEB = make("cluster.local", "shop", "web")


def test_a_certificate_is_known_by_its_serial_and_a_service_account_in_every_trust_domain() -> None:
    revoked = Revoked({"serial:0aff": "by alice: stolen", "account:shop/db": "", "later-kind:x": "?"})
    assert revoked.why(0xAFF, WEB) == f"certificate aff of {WEB} is revoked (by alice: stolen)"
    assert revoked.why(1, WEB) == ""
    for domain in ("cluster.local", "old.example"):
        assert revoked.why(1, make(domain, "shop", "db")) == f"spiffe://{domain}/ns/shop/sa/db is revoked"
    assert revoked.why(1, make("cluster.local", "other", "db")) == ""
    assert bool(revoked) and not Revoked()


def test_it_can_be_handed_on_to_workers() -> None:
    items = {"serial:aff": "why", "account:shop/db": "because"}
    assert Revoked(Revoked(items).items()).items() == items


@pytest.mark.parametrize("text", ["aff", "AFF", "0a:ff", " aff\n", "0000aff"])
def test_serials_are_read_as_people_write_them(text: str) -> None:
    assert serial_of(text) == 0xAFF


@pytest.mark.parametrize("text", ["", "xyz", "0x1", "-1", "1" * 129, "1_0"])
def test_what_is_no_serial_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        serial_of(text)


def test_an_item_that_cannot_be_read_is_refused_with_its_version() -> None:
    with pytest.raises(ValueError):
        read("serial:xyz", b"{}")
    assert read("serial:aff", b'{"why": "stolen", "more": 1}').why == "stolen"
