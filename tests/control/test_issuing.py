"""Certificates asked for at one time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from fairlead.control.authority_files import open_authority
from fairlead.control.issued import IssuedLeaf
from fairlead.control.issuing import TOGETHER_MOST, Ask, Together
from fairlead.mesh.csr import make as make_csr

NOW = 1_800_000_000.0


class Signer:
    """Takes asks in groups; refuses those of account `bad`."""

    def __init__(self) -> None:
        self.groups: list[list[Ask]] = []
        self.told: list[str] = []
        """What happened, in order."""

    def issue(self, asks: Sequence[Ask], now: float) -> list[dict[str, Any] | Exception]:
        assert now == NOW
        self.groups.append(list(asks))
        self.told.append("signed")
        return [ValueError("no") if account == "bad" else {"serial": csr} for csr, _, account in asks]

    def record(self, leaves: Sequence[IssuedLeaf]) -> None:
        self.told.append(f"on record: {' '.join(leaf.serial for leaf in leaves)}")

    def together(self) -> Together:
        return Together(self.issue, lambda: NOW, self.record)


def leaf(issued: dict[str, Any], now: float) -> IssuedLeaf:
    return IssuedLeaf(issued["serial"], "", "default/web", "aa", now, now + 1)


@pytest.mark.asyncio
async def test_those_that_come_at_one_time_are_made_together_and_are_on_record_before_they_are_handed_out() -> None:
    signer = Signer()
    together = signer.together()

    async def one(number: int) -> dict[str, Any]:
        got = await together.ask((str(number), "default", "web"), leaf if number else None)
        signer.told.append(f"handed out {number}")
        return got

    got = await asyncio.gather(*map(one, range(3)))
    assert got == [{"serial": str(number), "time": NOW} for number in range(3)]
    assert signer.told == ["signed", "on record: 1 2", "handed out 0", "handed out 1", "handed out 2"]


@pytest.mark.asyncio
async def test_a_refusal_is_that_of_one_alone() -> None:
    signer = Signer()
    together = signer.together()
    asks = [
        together.ask(("1", "n", "a"), leaf),
        together.ask(("2", "n", "bad"), leaf),
        together.ask(("3", "n", "a"), leaf),
    ]
    found = await asyncio.gather(*asks, return_exceptions=True)
    assert [type(one) for one in found] == [dict, ValueError, dict]
    assert signer.told[1:] == ["on record: 1 3"]


@pytest.mark.asyncio
async def test_many_leave_turns_to_others_and_who_has_gone_is_given_none() -> None:
    signer = Signer()
    together = signer.together()
    asks = [together.ask((str(number), "n", "a"), leaf) for number in range(TOGETHER_MOST + 4)]
    asks[1].cancel()
    between: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: between.append(len(signer.groups)))
    await asyncio.gather(*asks, return_exceptions=True)
    assert [len(group) for group in signer.groups] == [TOGETHER_MOST - 1, 4]
    assert between == [1]
    await together.ask(("later", "n", "a"), None)
    assert len(signer.groups) == 3


@pytest.mark.asyncio
async def test_a_defect_is_told_to_all_and_ends_nothing() -> None:
    signer = Signer()

    def defect(_leaves: object) -> None:
        raise ZeroDivisionError

    together = Together(signer.issue, lambda: NOW, defect)
    found = await asyncio.gather(
        together.ask(("1", "n", "a"), leaf), together.ask(("2", "n", "bad"), leaf), return_exceptions=True
    )
    assert [type(one) for one in found] == [ZeroDivisionError, ZeroDivisionError]
    assert await together.ask(("3", "n", "a"), None) == {"serial": "3", "time": NOW}


def test_an_authority_makes_of_several_what_it_makes_of_each(tmp_path: Path) -> None:
    issuer = open_authority(tmp_path, "cluster.local", 3600.0)
    good = [make_csr()["csr"] for _ in range(3)]
    now = issuer.authority.begins + 1000
    asks = [(good[0], "default", "a"), ("rubbish", "default", "a"), (good[1], "other", "b"), (good[2], "x/y", "b")]
    made = issuer.issue_all(asks, now)
    told = [str(one) if isinstance(one, Exception) else one["identity"] for one in made]
    assert told[0] == "spiffe://cluster.local/ns/default/sa/a"
    assert told[2] == "spiffe://cluster.local/ns/other/sa/b"
    assert "not a certificate request" in told[1]
    assert isinstance(made[3], ValueError)
    for one, csr in ((made[0], good[0]), (made[2], good[1])):
        assert isinstance(one, dict)
        found = x509.load_pem_x509_certificate(one["certificates"].encode())
        assert found.public_key() == x509.load_pem_x509_csr(csr.encode()).public_key()
        assert f"{found.serial_number:x}" == one["serial"]
    with pytest.raises(ValueError, match="not a certificate request"):
        issuer.issue("rubbish", "default", "a", now)
    expired = issuer.issue_all([(good[0], "default", "a"), (good[1], "default", "b")], issuer.authority.ends + 1)
    assert all("expired" in str(one) for one in expired)
