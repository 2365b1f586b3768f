"""Pages of one moment, and what is answered when that moment is too long ago, or has not come."""

from __future__ import annotations

import pytest

from fairlead.control.api_request import Query, Target
from fairlead.control.catalog import Catalog
from fairlead.control.listing import page
from fairlead.control.status import StatusError
from fairlead.control.store import Key, Log, Objects, Write
from fairlead.policy.kinds import KINDS

SERVICES = Target(Catalog(KINDS).by_name["services"], "v1", "d")


def put(memory: Objects, *names: str) -> None:
    for name in names:
        body = {"metadata": {"name": name, "namespace": "d"}}
        memory.commit(memory.plan([Write(Key("services", "d", name), body)]))


def names(memory: Objects, **query: object) -> tuple[list[str], dict[str, object]]:
    found, metadata = page(memory, SERVICES, Query(**query))  # type: ignore[arg-type]
    return [one.key.name for one in found], metadata


def test_all_pages_are_of_one_moment() -> None:
    memory = Objects()
    put(memory, "a", "b", "c")
    first, metadata = names(memory, limit=1)
    assert (first, metadata["remainingItemCount"]) == (["a"], 2)
    put(memory, "aa", "d")
    memory.commit(memory.plan([Write(Key("services", "d", "b"), None)]))
    second, more = names(memory, limit=1, continue_=metadata["continue"])
    assert (second, more["resourceVersion"]) == (["b"], "3")
    assert names(memory, continue_=more["continue"]) == (["c"], {"resourceVersion": "3"})


def test_a_token_that_is_too_old_comes_back_with_one_that_goes_on_from_now() -> None:
    memory = Objects(log=Log(entries_max=2))
    put(memory, "a", "b", "c")
    _, metadata = names(memory, limit=1)
    put(memory, *"defghi")
    with pytest.raises(StatusError, match="The provided continue parameter is too old") as gone:
        names(memory, limit=2, continue_=metadata["continue"])
    status = gone.value.body()
    assert (status["code"], status["reason"]) == (410, "Expired")
    rest, more = names(memory, limit=2, continue_=status["metadata"]["continue"])
    assert rest == ["b", "c"]
    assert more["resourceVersion"] == str(memory.revision)


def test_which_moment_is_meant() -> None:
    memory = Objects()
    put(memory, "a", "b")
    assert names(memory, resource_version="1", resource_version_match="Exact")[0] == ["a"]
    assert names(memory, resource_version="1", resource_version_match="NotOlderThan")[0] == ["a", "b"]
    assert names(memory, resource_version="1")[0] == ["a", "b"]
    assert names(memory, resource_version="1", limit=5)[0] == ["a"], "a limit without a match means Exact"
    assert names(memory, resource_version="0", limit=5)[0] == ["a", "b"]
    with pytest.raises(StatusError, match="Too large resource version: 9, current: 2") as early:
        names(memory, resource_version="9")
    assert early.value.code == 504
    assert early.value.body()["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
