"""The path of the Unix socket, and the file of users."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fairlead.control.workload_socket import clear_path, is_own_address, read_users


def test_a_socket_that_nobody_listens_on_is_removed_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    clear_path(str(path))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(ValueError, match="another process listens there"):
            clear_path(str(path))
    clear_path(str(path))
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(ValueError, match="is no socket"):
        clear_path(str(path))


def test_a_file_of_users_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "users"
    with pytest.raises(ValueError, match="No such file"):
        read_users(str(path))
    path.write_text("nobody-at-all shop/web")
    with pytest.raises(ValueError, match=f"{path}: line 1"):
        read_users(str(path))
    path.write_text("root shop/web")
    assert read_users(str(path)).principal(0, "").service_account == "web"
    assert len(read_users("")) == 0


def test_an_address_is_ours_if_this_host_has_it() -> None:
    assert is_own_address("127.0.0.1") and is_own_address("127.9.9.9")
    assert not is_own_address("192.0.2.1") and not is_own_address("no address") and not is_own_address("2001:db8::1")
