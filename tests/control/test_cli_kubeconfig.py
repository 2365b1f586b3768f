"""`fairlead kubeconfig`, and the real kubectl with what it wrote, over TLS."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.control.api import Options
from fairlead.control.authority_files import open_authority
from fairlead.control.cli import main
from tests.control.kubectl import Kubectl
from tests.control.serving import api_on, store_in
from tests.mesh.certificates_made import authority, material

TOKEN = "a-token-of-thirty-two-characters"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("FAIRLEAD_") or name == "KUBECONFIG":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def written(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_without_a_file_it_is_made_in_the_home_for_its_owner_only(home: Path) -> None:
    assert main(["kubeconfig", "--control", "http://127.0.0.1:15010", "-n", "shop"]) == 0
    path = home / ".kube" / "config"
    assert path.stat().st_mode & 0o777 == 0o600
    assert written(path)["contexts"][0]["context"]["namespace"] == "shop"
    assert sorted(p.name for p in path.parent.iterdir()) == ["config"]


def test_the_variable_kubeconfig_says_where_and_a_link_stays_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = home / "real.yaml"
    real.write_text("current-context: mine\n")
    real.chmod(0o640)
    link = home / "link.yaml"
    link.symlink_to(real)
    monkeypatch.setenv("KUBECONFIG", f"{home / 'absent.yaml'}{os.pathsep}{link}")
    assert main(["kubeconfig"]) == 0
    assert link.is_symlink() and not (home / "absent.yaml").exists()
    assert written(real)["current-context"] == "mine" and written(real)["clusters"][0]["name"] == "fairlead"
    assert real.stat().st_mode & 0o777 == 0o640


def test_what_cannot_be_read_or_says_otherwise_is_left_as_it_is(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "config"
    monkeypatch.setenv("KUBECONFIG", str(path))
    for text, says in (
        ("a: [", "cannot be read, and is left as it is"),
        ("kind: Pod", "is not a kubeconfig"),
        ("clusters: [{name: fairlead, cluster: {server: 'https://else'}}]", "another cluster of the name fairlead"),
    ):
        path.write_text(text)
        assert main(["kubeconfig"]) == 1
        assert path.read_text() == text
        assert says in capsys.readouterr().err
    assert main(["kubeconfig", "--force"]) == 0
    assert written(path)["clusters"] == [{"name": "fairlead", "cluster": {"server": "http://127.0.0.1:15010"}}]


def test_while_another_program_writes_nothing_is_written(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(home / "config"))
    (home / "config.lock").touch()
    assert main(["kubeconfig"]) == 1
    assert "config.lock exists" in capsys.readouterr().err
    assert not (home / "config").exists()


def test_standard_output_and_certificates(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = material(authority())
    (home / "c.pem").write_text(made.certificates)
    (home / "k.pem").write_text(made.key)
    flags = ["kubeconfig", "--kubeconfig", "-", "--client-certificate", str(home / "c.pem")]
    assert main(flags) == 2
    assert "give both or none" in capsys.readouterr().err
    assert main([*flags, "--client-key", str(home / "k.pem"), "--name", "m"]) == 0
    user = yaml.safe_load(capsys.readouterr().out)["users"][0]
    assert user["name"] == "m" and set(user["user"]) == {"client-certificate-data", "client-key-data"}
    assert main([*flags, "--client-key", str(home / "c.pem")]) == 2
    assert "expected PEM with a PRIVATE KEY" in capsys.readouterr().err


@pytest.mark.asyncio
async def test_kubectl_gets_in_with_what_was_written(home: Path) -> None:
    tokens = home / "tokens"
    tokens.write_text(f"{TOKEN} admin\n")
    (home / "token").write_text(TOKEN)
    (home / "ca").mkdir()
    issuer = open_authority(home / "ca", "cluster.local", 3600.0)
    async with store_in(home) as store, api_on(store, Options(admin_token_file=str(tokens))) as (api, _):
        port = await api.start("127.0.0.1", 0, ssl=issuer.server_context(["127.0.0.1"]))
        flags = ["--control", f"https://127.0.0.1:{port}", "--ca", str(home / "ca" / "ca.pem")]
        code = await asyncio.to_thread(
            main, ["kubeconfig", *flags, "--token-file", str(home / "token"), "--context", "mesh", "-n", "shop"]
        )
        assert code == 0
        kubectl = Kubectl(home, "http://127.0.0.1:1")
        environment = {"KUBECONFIG": str(home / ".kube" / "config")}
        assert await kubectl.done("config", "current-context", **environment) == "mesh\n"
        out = await kubectl.done("create", "service", "clusterip", "web", "--tcp=80", **environment)
        assert out == "service/web created\n"
        assert "web" in await kubectl.done("get", "svc", "-n", "shop", **environment)
        assert "Kubernetes control plane" in await kubectl.done("cluster-info", **environment)
