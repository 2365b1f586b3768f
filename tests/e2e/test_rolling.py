"""Rolling restarts of the example shop under load; at length: `python bench/rolling.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import rolling
from tests.e2e.roles import PACE_S

pytestmark = pytest.mark.asyncio


async def test_no_request_fails_while_apps_sidecars_and_the_gateway_are_restarted(tmp_path: Path) -> None:
    """One app of each kind with its sidecar, by SIGTERM and by hand-over; 2,000 requests at least."""
    load = await rolling.run(
        2000, tmp_path, "127.0.4", workloads=["front-1", "catalogue-v1-1", "reviews-1"], pause_s=PACE_S
    )
    assert not load.failures
    assert load.answered >= 2000
