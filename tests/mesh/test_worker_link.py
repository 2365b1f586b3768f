"""Messages between a supervisor and its workers, cut at every octet."""

from __future__ import annotations

import pickle
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest

from fairlead.mesh import worker_link as say
from fairlead.mesh.sidecar_options import NamedPort, SidecarOptions
from fairlead.registry.model import Workload

OPTIONS = SidecarOptions(
    Workload("default", "web-1", labels={"app": "web"}),
    inbound=("0.0.0.0", 15006),
    named=(NamedPort("::1", 1, "w", 2),),
    proxies={"inbound": (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))},
)
DOWN: list[say.Down] = [
    say.Begin(pickle.dumps(OPTIONS), 1, 2, 30.0), say.Certificate("c", "k", "r", 1.0, 2.0),
    say.Items(b"{}", {"a": 1}, [("h", 1, "s", 2)]),
    say.Drain(1.0), say.End(), say.Ask(1, "metrics"), say.ReopenLog(), say.Ejection("c", "h", 1.0, 2, "why"),
]  # fmt: skip
UP: list[say.Up] = [
    say.Listening(), say.Listening("no"), say.Refused(["r"]), say.NotListened([("a", 1, "w")]),
    say.Told(1, b"x" * 9), say.Condition({"gateway": "w"}, {"n": "w"}, {"gateway:80": "*:1"}),
    say.Drained(True), say.Ejection("c", "h", 1.0, 2, "why"),
]  # fmt: skip


class Wire:
    def __init__(self) -> None:
        self.written = b""
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True


def link(kinds: Any) -> tuple[say.Link, list[Any], list[str]]:
    heard: list[Any] = []
    ends: list[str] = []
    made = say.Link(kinds, heard.append, lambda: ends.append("end"))
    made.connection_made(Wire())  # type: ignore[arg-type]
    return made, heard, ends


def written(messages: list[Any]) -> bytes:
    sender, _, _ = link(say.Down)
    for message in messages:
        sender.send(message)
    out: bytes = sender._transport.written
    return out


@pytest.mark.parametrize(("kinds", "messages"), [(say.Down, DOWN), (say.Up, UP)], ids=("down", "up"))
def test_every_message_arrives_as_it_was_sent_however_it_is_cut(kinds: Any, messages: list[Any]) -> None:
    data = written(messages)
    for cut in range(len(data) + 1):
        receiver, heard, _ = link(kinds)
        receiver.data_received(data[:cut])
        receiver.data_received(data[cut:])
        assert heard == messages
    receiver, heard, _ = link(kinds)
    for at in range(len(data)):
        receiver.data_received(data[at : at + 1])
    assert heard == messages


def test_a_message_of_the_wrong_direction_or_an_endless_one_is_an_error() -> None:
    receiver, _, _ = link(say.Down)
    with pytest.raises(msgspec.ValidationError):
        receiver.data_received(written([say.Drained(True)]))
    receiver, _, _ = link(say.Down)
    with pytest.raises(ValueError, match="a message of"):
        receiver.data_received(b"\xff\xff\xff\xff")


def test_once_the_other_end_is_gone_sending_does_nothing() -> None:
    made, _, ends = link(say.Up)
    made.connection_lost(None)
    made.send(say.Listening())
    made.close()
    assert ends == ["end"]


def test_every_setting_of_a_sidecar_reaches_its_workers() -> None:
    (begin,) = [message for message in DOWN if isinstance(message, say.Begin)]
    assert pickle.loads(begin.options) == OPTIONS
