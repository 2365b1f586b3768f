"""The protocol of one ADS stream: order, subscriptions, answers, refusals."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.control import xds_session
from fairlead.control.xds_session import CDS, EDS, LDS, RDS, Session, TooManyError

Served = dict[str, dict[str, tuple[str, bytes]]]


def served(**changes: str) -> Served:
    """Two clusters with endpoints, a listener with its route; `changes`: other versions, by kind_name; empty: gone."""
    versions = {"cds_a": "1", "cds_b": "1", "eds_a": "1", "eds_b": "1", "lds_l": "1", "rds_r": "1", **changes}
    urls = {"cds": CDS, "eds": EDS, "lds": LDS, "rds": RDS}
    found: Served = {url: {} for url in urls.values()}
    for key, version in versions.items():
        kind, _, name = key.partition("_")
        if version:
            found[urls[kind]][name] = (version, f"{key}={version}".encode())
    return found


class Client:
    """Answers what it is sent, as Envoy does, unless it has something against it."""

    def __init__(self, session: Session, refuses: str = "") -> None:
        self.session = session
        self.refuses = refuses
        self.log: list[tuple[str, list[str]]] = []
        self.names: dict[str, list[str]] = {}

    def ask(self, url: str, *names: str) -> None:
        self.names[url] = list(names)
        key = "resource_names_subscribe" if self.session.delta else "resource_names"
        self.session.request({"type_url": url, key: list(names)})
        self.read()

    def read(self) -> None:
        while out := self.session.take():
            for response in out:
                url = response["type_url"]
                had = [one["resource"] if self.session.delta else one for one in response["resources"]]
                gone = [f"-{name}" for name in response.get("removed_resources", ())]
                self.log.append((url.rpartition(".")[2], sorted(one.decode() for one in had) + gone))
                answer: dict[str, Any] = {"type_url": url, "response_nonce": response["nonce"]}
                if not self.session.delta:
                    answer["resource_names"] = self.names.get(url, [])
                if self.refuses and any(self.refuses in one.decode() for one in had):
                    answer["error_detail"] = {"code": 13, "message": f"no {self.refuses}"}
                self.session.request(answer)

    def heard(self) -> list[tuple[str, list[str]]]:
        found, self.log = self.log, []
        return found

    def connect(self) -> None:
        self.ask(CDS)
        self.ask(EDS, "a", "b")
        self.ask(LDS)
        self.ask(RDS, "r")


@pytest.fixture(params=[False, True], ids=["whole", "difference"])
def session(request: pytest.FixtureRequest) -> Session:
    made = Session(request.param)
    made.update("v1", served())
    return made


def test_all_is_sent_once_and_what_is_answered_is_in_force(session: Session) -> None:
    client = Client(session)
    client.connect()
    assert client.heard() == [
        ("Cluster", ["cds_a=1", "cds_b=1"]),
        ("ClusterLoadAssignment", ["eds_a=1", "eds_b=1"]),
        ("Listener", ["lds_l=1"]),
        ("RouteConfiguration", ["rds_r=1"]),
    ]
    assert (session.taken, session.refused) == ("v1", "")
    session.update("v2", served())
    client.read()
    assert (client.heard(), session.taken) == ([], "v2")  # nothing of it is new to this one


def test_a_change_of_endpoints_sends_those_alone(session: Session) -> None:
    client = Client(session)
    client.connect()
    client.heard()
    session.update("v2", served(eds_b="2"))
    assert session.taken == "v1"
    client.read()
    assert client.heard() == [("ClusterLoadAssignment", ["eds_b=2"])]
    assert session.taken == "v2"


def test_clusters_come_before_what_refers_to_them_and_are_warmed_with_their_endpoints(session: Session) -> None:
    client = Client(session)
    client.connect()
    client.heard()
    session.update("v2", served(cds_a="2", lds_l="2"))
    client.read()
    whole = ["cds_a=2"] if session.delta else ["cds_a=2", "cds_b=1"]
    assert client.heard() == [
        ("Cluster", whole),
        ("ClusterLoadAssignment", ["eds_a=1"]),
        ("Listener", ["lds_l=2"]),
        ("RouteConfiguration", ["rds_r=1"]),
    ]


def test_what_is_gone_is_told(session: Session) -> None:
    client = Client(session)
    client.connect()
    client.heard()
    session.update("v2", served(cds_b="", eds_b=""))
    client.read()
    if session.delta:
        assert client.heard() == [("Cluster", ["-b"]), ("ClusterLoadAssignment", ["-b"])]
    else:
        assert client.heard() == [("Cluster", ["cds_a=1"])]  # what it lacks is gone
    assert session.taken == "v2"


def test_a_refusal_is_kept_with_its_reason_until_something_better_is_taken(session: Session) -> None:
    client = Client(session, refuses="cds_a=2")
    client.connect()
    session.update("v2", served(cds_a="2"))
    client.read()
    assert (session.taken, session.refused, session.reasons) == ("v1", "v2", ["Cluster: no cds_a=2"])
    session.update("v3", served(cds_a="2", eds_b="2"))
    client.read()
    assert (session.taken, session.refused) == ("v1", "v2")  # the cluster was not offered again, and is still missing
    session.update("v4", served(cds_a="3"))
    client.read()
    assert (session.taken, session.refused, session.reasons) == ("v4", "", [])


def test_a_new_subscription_is_answered(session: Session) -> None:
    client = Client(session)
    client.connect()
    client.heard()
    nonce = session._types[EDS].nonce
    if session.delta:
        session.request({"type_url": EDS, "resource_names_subscribe": ["c"]})
        client.read()
        assert client.heard() == [("ClusterLoadAssignment", ["-c"])]  # there is no such thing: it need not wait
    session.update("v2", served(eds_c="1"))
    client.read()
    if not session.delta:
        client.names[EDS] = ["a", "b", "c"]
        session.request({"type_url": EDS, "resource_names": ["a", "b", "c"], "response_nonce": nonce})
        client.read()
    assert client.heard() == [("ClusterLoadAssignment", ["eds_c=1"])]


def test_an_answer_to_what_is_out_of_date_is_not_looked_at() -> None:
    session = Session()
    session.update("v1", served())
    session.request({"type_url": CDS})
    [first] = session.take()
    session.update("v2", served(cds_a="2"))
    [second] = session.take()
    session.request({"type_url": CDS, "response_nonce": first["nonce"], "error_detail": {"message": "late"}})
    assert (session.refused, session.take()) == ("", [])
    session.request({"type_url": CDS, "response_nonce": second["nonce"]})
    assert session.taken == "v2"


def test_a_client_that_comes_back_hears_of_what_changed_and_what_is_gone() -> None:
    session = Session(delta=True)
    session.update("v9", served(cds_b="2"))
    had = {"a": "1", "b": "1", "old": "1"}
    session.request({"type_url": CDS, "initial_resource_versions": had})
    [response] = session.take()
    assert [one["name"] for one in response["resources"]] == ["b"]
    assert response["removed_resources"] == ["old"]


def test_unsubscribing_ends_what_is_sent() -> None:
    session = Session(delta=True)
    session.update("v1", served())
    client = Client(session)
    client.ask(EDS, "a", "b")
    client.heard()
    session.request({"type_url": EDS, "resource_names_unsubscribe": ["a"]})
    session.update("v2", served(eds_a="2"))
    client.read()
    assert (client.heard(), session.taken) == ([], "v2")


def test_listeners_by_name_are_told_to_be_missing_to_grpc() -> None:
    session = Session()
    session.update("v1", served())
    client = Client(session)
    client.ask(LDS, "l", "none")
    assert client.heard() == [("Listener", ["lds_l=1"])]


def test_a_stream_names_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xds_session, "NAMES_MAX", 2)
    session = Session()
    with pytest.raises(TooManyError):
        session.request({"type_url": EDS, "resource_names": ["a", "b", "c"]})


def test_what_comes_while_answers_are_being_written_is_told_once_and_as_it_is_then(session: Session) -> None:
    client = Client(session)
    client.connect()
    client.heard()
    session.update("v2", served(eds_a="2"))
    out = session.take()  # is being written, and the client does not read
    for number in range(3, 100):
        session.update(f"v{number}", served(eds_a=str(number), cds_b=""))
    assert session.waiting == 0
    assert session.taken == "v1"
    for response in out:
        session.request(
            {"type_url": response["type_url"], "response_nonce": response["nonce"], "resource_names": ["a", "b"]}
        )
    assert session.taken == "v1", "more is on its way than what was answered"
    client.read()
    heard = client.heard()
    assert [kind for kind, _ in heard] == ["Cluster", "ClusterLoadAssignment"]
    assert "eds_a=99" in heard[1][1]
    assert session.taken == "v99"


def test_what_came_and_went_while_answers_were_being_written_is_in_force_when_these_are_answered(
    session: Session,
) -> None:
    client = Client(session)
    client.connect()
    session.update("v2", served(eds_a="2"))
    out = session.take()
    session.update("v3", served(eds_a="3"))
    session.update("v4", served(eds_a="2"))
    for response in out:
        names = ["a", "b"]
        session.request(
            {"type_url": response["type_url"], "response_nonce": response["nonce"], "resource_names": names}
        )
    assert session.take() == []
    assert session.taken == "v4"


def _endpoints(digest: str, *names: str) -> Served:
    return {EDS: {name: (digest, name.encode()) for name in names}}


def test_what_an_incremental_answer_to_an_older_response_subscribes_to_is_not_lost() -> None:
    session = Session(delta=True)
    session.update("1", _endpoints("1", "a", "b"))
    session.request({"type_url": EDS, "resource_names_subscribe": ["a"]})
    (first,) = session.take()
    session.update("2", _endpoints("2", "a", "b"))  # crosses the answer to the first
    session.take()
    session.request({"type_url": EDS, "response_nonce": first["nonce"], "resource_names_subscribe": ["b"]})
    assert [one["name"] for response in session.take() for one in response["resources"]] == ["b"]
    assert session.taken != "2"


def test_what_an_incremental_answer_to_an_older_response_drops_is_not_sent_again() -> None:
    session = Session(delta=True)
    session.update("1", _endpoints("1", "a", "b"))
    session.request({"type_url": EDS, "resource_names_subscribe": ["a", "b"]})
    (first,) = session.take()
    session.update("2", _endpoints("2", "a", "b"))
    session.take()
    session.request({"type_url": EDS, "response_nonce": first["nonce"], "resource_names_unsubscribe": ["b"]})
    session.update("3", _endpoints("3", "a", "b"))
    assert [one["name"] for response in session.take() for one in response["resources"]] == ["a"]


def test_a_reader_that_stands_still_finds_the_newest_and_not_each_version_between() -> None:
    session = Session(delta=True)
    session.update("0", _endpoints("0", "a"))
    session.request({"type_url": EDS, "resource_names_subscribe": ["a"]})
    for number in range(1, 100):
        session.update(str(number), _endpoints(str(number), "a"))
    responses = session.take()
    assert len(responses) <= 2
    assert responses[-1]["resources"][0]["version"] == "99"
    assert session.taken != "99"
