"""The same manifests and requests through our sidecar and through an Envoy fed by our xDS: the same comes of them.

The cases and what may differ are those of the oracle, where Envoy's routes are written by hand; here they are made of
the VirtualServices, so a difference is a fault of the translation.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.oracle import Apps, Case, Oracle, differences, oracle, service
from tests.e2e.oracle_cases import DIFFERENT, DIRECT, TABLE
from tests.e2e.pair import FAIRLEAD
from tests.e2e.test_envoy_oracle_random import CASE as RANDOM
from tests.e2e.test_envoy_oracle_random import random_request
from tests.servers import free_ports, program

RANDOM_REQUESTS = 500


class FedOracle(Oracle):
    """Its Envoy has everything from control, which has the same manifests as the sidecar."""

    def _envoy(self, folder: Path, port: int, cases: Any, clusters: Any) -> None:
        api, xds, admin = free_ports(3)
        control = [FAIRLEAD, "control", "-f", str(folder / "oracle.yaml"), "--listen", f"127.0.0.1:{api}",
                   "--xds-listen", f"127.0.0.1:{xds}", "--data-dir", str(folder / "control")]  # fmt: skip
        self.processes.start("control", control, [api, xds])
        agent = [FAIRLEAD, "envoy", "--workload", "default/client-1", "--control", f"http://127.0.0.1:{api}", "--xds",
                 f"127.0.0.1:{xds}", "--data-dir", str(folder / "envoy"), "--outbound", f"127.0.0.1:{port}",
                 "--admin", f"127.0.0.1:{admin}", "--inbound", "off", "--once"]  # fmt: skip
        subprocess.run(agent, check=True, capture_output=True)
        command = [program("envoy"), "-c", str(folder / "envoy" / "envoy.json"), "--concurrency", "1",
                   "--use-dynamic-base-id", "-l", "warning", "--disable-hot-restart"]  # fmt: skip
        self.processes.start("envoy", command, [port])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    more = yaml.safe_dump_all([*service("empty", []), *service("dead", [1])])
    with oracle(tmp_path_factory.mktemp("fed"), [*TABLE, RANDOM], Apps("v1", "v2", "v3"), more, kind=FedOracle) as made:
        yield made


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_our_sidecar_and_an_envoy_that_we_feed_do_the_same(both: Oracle, case: Case) -> None:
    told = []
    for text in case.requests:
        ours, theirs = both.both(case, text)
        found = differences(ours, theirs, text, own_body=case in DIRECT)
        if (case.name, text) in DIFFERENT:
            if not found:
                told.append(f"{text}: no difference any more: {DIFFERENT[case.name, text]}")
        elif found:
            told.append(found)
    assert not told, "\n".join(told)


def test_both_agree_on_random_requests(both: Oracle) -> None:
    draw = random.Random(21)
    told = []
    for _ in range(RANDOM_REQUESTS):
        text = random_request(draw)
        ours, theirs = both.both(RANDOM, text)
        told.append(differences(ours, theirs, text, own_body=theirs.status == 202))
    assert not any(told), "\n".join(filter(None, told))
