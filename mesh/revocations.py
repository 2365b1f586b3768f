"""What certificates and service accounts are taken back, as control tells of it with the feed.

An item `revoked/serial:HEX` names one certificate, `revoked/account:NAMESPACE/NAME` all of a service account, in
whichever trust domain; its value says why, for the log. Certificates are drawn numbers of 160 bits, so a serial alone
names one, whoever signed it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .identity import SpiffeId

SERIAL, ACCOUNT = "serial:", "account:"


class Why(msgspec.Struct, frozen=True):
    """The value of an item."""

    why: str = ""


_decode = msgspec.json.Decoder(Why).decode


class Revoked:
    """By certificate and by service account; empty: nothing is taken back."""

    __slots__ = ("accounts", "serials")

    def __init__(self, items: Mapping[str, str] | None = None) -> None:
        """`items`: names without `revoked/`, and why. What is of no kind that we know is left out."""
        self.serials: dict[int, str] = {}
        self.accounts: dict[tuple[str, str], str] = {}
        for name, why in (items or {}).items():
            if name.startswith(SERIAL):
                self.serials[serial_of(name[len(SERIAL) :])] = why
            elif name.startswith(ACCOUNT):
                namespace, _, account = name[len(ACCOUNT) :].partition("/")
                self.accounts[namespace, account] = why

    def __bool__(self) -> bool:
        return bool(self.serials or self.accounts)

    def items(self) -> dict[str, str]:
        """What it can be made of again."""
        serials = {f"{SERIAL}{serial:x}": why for serial, why in self.serials.items()}
        return serials | {f"{ACCOUNT}{'/'.join(one)}": why for one, why in self.accounts.items()}

    def why(self, serial: int, identity: SpiffeId) -> str:
        """Why a certificate is not to be believed; empty: it is not taken back."""
        told = self.serials.get(serial)
        if told is not None:
            return f"certificate {serial:x} of {identity} is revoked{f' ({told})' if told else ''}"
        told = self.accounts.get((identity.namespace, identity.service_account))
        if told is not None:
            return f"{identity} is revoked{f' ({told})' if told else ''}"
        return ""


def read(name: str, value: bytes) -> Why:
    """An item that was received. Raises ValueError."""
    if name.startswith(SERIAL):
        serial_of(name[len(SERIAL) :])
    return _decode(value)


def serial_of(text: str) -> int:
    """A serial number in hexadecimal, as people write it (colons, upper case, leading zeros). Raises ValueError."""
    digits = text.strip().replace(":", "")
    if not digits or len(digits) > 128 or any(one not in "0123456789abcdefABCDEF" for one in digits):
        raise ValueError(f"expected a serial number in hexadecimal, got {text[:80]!r}")
    return int(digits, 16)
