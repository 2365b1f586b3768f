"""Every proxy has a configuration for every kind of work of the bench."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import machine, peers, run

KINDS = sorted({work.kind for work in run.WORKS.values() if not work.only} | {"known10", "known1000", "routed1000"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("peer", peers.PEERS)
def test_each_kind_of_work_is_configured_for_each_proxy_with_an_access_log(
    peer: str, kind: str, tmp_path: Path
) -> None:
    commands = peers.PEERS[peer](kind, tmp_path, 2001, 2000)
    assert len(commands) == len(peers.ports_of(kind, 2001))
    written = "".join(path.read_text() for path in tmp_path.iterdir()) + str(commands)
    logs = {"HAProxy": "log global", "nginx": "buffer=64k", "Envoy": "FileAccessLog", "Fairlead": "fairlead-out.log"}
    assert (logs[peer] in written) == (kind != "l7quiet")


def test_a_costly_row_is_fairleads_own(tmp_path: Path) -> None:
    (command,) = peers.PEERS["Fairlead"]("heavyx2", tmp_path, 2001, 2000)
    assert command[-2:] == ["--outbound", "127.0.0.1:2001"]
    assert command[command.index("--workers") + 1] == "2"
    assert (tmp_path / "fairlead.yaml").read_text().count("regex:") == 1000


def test_processor_time_and_memory_are_those_of_this_process() -> None:
    import os

    before = machine.cpu_us([os.getpid()])
    sum(range(2_000_000))
    assert 1_000 < machine.cpu_us([os.getpid()]) - before < 60_000_000
    assert 10 < machine.memory_mb([os.getpid()]) < 4_000
    assert machine.processes(os.getpid())[0] == os.getpid()
