"""Pods in a whole mesh, as kubectl waits for them: their status is what their sidecars tell."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.control.kubectl import Kubectl
from tests.e2e.test_mesh import shop

pytestmark = pytest.mark.asyncio


async def test_kubectl_waits_for_a_pod_that_runs_with_a_sidecar_and_sees_it_go(tmp_path: Path) -> None:
    async with shop(tmp_path) as mesh:
        home = tmp_path / "home"
        os.mkdir(home)
        kubectl = Kubectl(home, mesh.url)
        await kubectl.done("wait", "--for=condition=Ready", "pod", "--all", "--timeout=30s")
        await mesh.apply(
            "{apiVersion: v1, kind: Pod, metadata: {name: later-1, annotations: {fairlead.dev/address: 127.0.0.9}}, "
            "spec: {serviceAccountName: later, containers: [{name: app}]}}"
        )
        code, _, _ = await kubectl.run("wait", "--for=condition=Ready", "pod/later-1", "--timeout=1s")
        assert code, "nobody has heard of its sidecar"
        lines = (await kubectl.done("get", "pods", "--no-headers", "-o", "wide")).splitlines()
        told = {line.split()[0]: line.split()[1:3] for line in lines}
        assert told["web-1"] == ["1/1", "Running"]
        assert told["later-1"] == ["0/1", "Pending"]
        watching = await kubectl.start("get", "pods", "web-1", "-w", "--no-headers")
        assert watching.stdout is not None
        assert (await asyncio.wait_for(watching.stdout.readline(), 20)).split()[1:3] == [b"1/1", b"Running"]
        await mesh.sidecars["web"].stop()
        assert (await asyncio.wait_for(watching.stdout.readline(), 20)).split()[1] == b"0/1"
        watching.terminate()
        await watching.wait()
        told_of = await kubectl.json("get", "pod", "web-1")
        ready = next(one for one in told_of["status"]["conditions"] if one["type"] == "Ready")
        assert ready["reason"] in ("SidecarGone", "SidecarDrains")
        await mesh.start_sidecar("web")
        await kubectl.done("wait", "--for=condition=Ready", "pod/web-1", "--timeout=30s")
