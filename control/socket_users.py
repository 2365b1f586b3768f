"""Which users of this host are which service accounts, where workloads come by the Unix socket.

A file of the operator, one user a line: `USER NAMESPACE/SERVICE_ACCOUNT[,...]`; USER is a name or a number, `#` begins
a comment. The kernel says which user is at the other end (SO_PEERCRED), so no secret is needed, and none can be stolen.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .auth import WORKLOAD, Principal, unauthorized
from .status import StatusError

_ACCOUNT = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?")


class SocketUsers:
    """Service accounts by user id."""

    def __init__(self, text: str, uid_of: Callable[[str], int]) -> None:
        """`uid_of` raises KeyError for a name that no user has. Raises ValueError naming the line."""
        self._accounts: dict[int, tuple[str, ...]] = {}
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            if len(words) != 2:
                raise ValueError(f"line {number}: expected USER NAMESPACE/SERVICE_ACCOUNT[,...]")
            try:
                uid = int(words[0]) if words[0].isascii() and words[0].isdigit() else uid_of(words[0])
            except KeyError:
                raise ValueError(f"line {number}: this host has no user {words[0]!r}") from None
            accounts = tuple(words[1].split(","))
            for account in accounts:
                if not _ACCOUNT.fullmatch(account):
                    raise ValueError(f"line {number}: expected NAMESPACE/SERVICE_ACCOUNT, got {account!r}")
            self._accounts[uid] = tuple(dict.fromkeys((*self._accounts.get(uid, ()), *accounts)))

    def __len__(self) -> int:
        return len(self._accounts)

    def principal(self, uid: int, wanted: str) -> Principal:
        """Who a user is; `wanted`: what it says it is, if it does. Raises StatusError 401, 403."""
        accounts = self._accounts.get(uid)
        if accounts is None:
            raise unauthorized(f"user {uid} of this host is no service account (--workload-users)")
        if not wanted and len(accounts) > 1:
            raise StatusError(403, f"user {uid} may be {' or '.join(accounts)}: say which (--service-account)")
        if wanted and wanted not in accounts:
            raise StatusError(403, f"user {uid} may not be {wanted[:300]}, but {' or '.join(accounts)}")
        namespace, _, account = (wanted or accounts[0]).partition("/")
        return Principal(WORKLOAD, f"uid:{uid}", namespace, account, groups=("fairlead:workloads",))
