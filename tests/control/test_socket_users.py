"""Users of this host as service accounts."""

from __future__ import annotations

import pytest

from fairlead.control.auth import WORKLOAD
from fairlead.control.socket_users import SocketUsers
from fairlead.control.status import StatusError

UIDS = {"www": 33}


def users(text: str) -> SocketUsers:
    return SocketUsers(text, UIDS.__getitem__)


def test_a_user_is_what_the_file_says_and_nothing_else() -> None:
    found = users("www shop/web  # the shop\n\n# nobody\n1001 shop/pay,shop/db\n1001 ops/agent\n")
    one = found.principal(33, "")
    assert (one.role, one.namespace, one.service_account, one.name) == (WORKLOAD, "shop", "web", "uid:33")
    assert found.principal(1001, "ops/agent").namespace == "ops"
    for uid, wanted, code, why in (
        (0, "", 401, "user 0"), (33, "shop/pay", 403, "may not be shop/pay, but shop/web"),
        (1001, "", 403, "say which"), (1001, "shop/web", 403, "may not be"),
    ):  # fmt: skip
        with pytest.raises(StatusError, match=why) as caught:
            found.principal(uid, wanted)
        assert caught.value.code == code


@pytest.mark.parametrize(
    "line", ["www", "www shop/web more", "nobody-here shop/web", "33 shop", "33 shop/web/x", "33 Shop/web", "33 ,"]
)
def test_a_line_that_makes_no_sense_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        users(f"# users\n{line}")
