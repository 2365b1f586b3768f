"""Manifests from files and folders: read again when they change, broken ones keep their last good documents."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fairlead.registry.documents import Document, Problem
from fairlead.registry.source_manifests import Manifests


class Heard:
    def __init__(self, *paths: Path) -> None:
        self.documents: list[Document] = []
        self.problems: list[Problem] = []
        self.times = 0
        self.manifests = Manifests([str(path) for path in paths], self.take)

    def take(self, documents: list[Document], problems: list[Problem]) -> None:
        self.documents, self.problems, self.times = documents, problems, self.times + 1

    def read(self) -> list[str]:
        self.manifests.read()
        return [document.name for document in self.documents]


def service(name: str) -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"


def test_a_folder_is_read_below_in_order_and_again_when_files_come_change_and_go(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(service("b"))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.yml").write_text(service("a"))
    (tmp_path / "notes.txt").write_text("no manifest")
    heard = Heard(tmp_path)
    assert heard.read() == ["b", "a"]
    assert heard.read() == ["b", "a"]
    assert heard.times == 1
    (tmp_path / "c.json").write_text('{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c"}}')
    (tmp_path / "b.yaml").write_text(service("bb"))
    assert heard.read() == ["bb", "c", "a"]
    (tmp_path / "b.yaml").unlink()
    assert heard.read() == ["c", "a"]
    assert heard.times == 3


def test_a_file_that_breaks_keeps_its_last_good_documents_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(service("good"))
    heard = Heard(path)
    assert heard.read() == ["good"]
    path.write_text("kind: [")
    assert heard.read() == ["good"]
    assert "last good documents" in str(heard.problems[0])
    assert "a.yaml:1" in str(heard.problems[0])
    path.write_text(service("better"))
    assert heard.read() == ["better"]
    assert heard.problems == []


def test_a_path_that_goes_away_keeps_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(service("good"))
    heard = Heard(path)
    assert heard.read() == ["good"]
    path.unlink()
    assert heard.read() == ["good"]
    assert "no such file" in str(heard.problems[0])


def test_a_path_that_was_never_there_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    heard = Heard(tmp_path / "nothing.yaml")
    heard.read()
    assert "no such file" in str(heard.manifests.unread()[0])
    (tmp_path / "there.yaml").write_text(service("a"))
    heard = Heard(tmp_path / "there.yaml")
    heard.read()
    assert heard.manifests.unread() == []


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", range(6))
async def test_an_end_that_meets_a_wish_to_look_is_not_lost(tmp_path: Path, turns: int) -> None:
    heard = Heard(tmp_path)
    task = asyncio.ensure_future(heard.manifests.run())
    await asyncio.sleep(0)
    heard.manifests.look_now()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    ended, _ = await asyncio.wait([task], timeout=5)
    task.cancel()
    assert ended
