"""Packages of other versions beside ours: what cannot be fetched is one clear error, and leaves nothing behind."""

import pytest

from chaos.environments.local.pinned import packages
from chaos.errors import PartMissing


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path / "cache"


def test_what_cannot_be_fetched(cache, tmp_path):
    wanted = tmp_path / "wanted.txt"
    wanted.write_text(f"nothing-of-this-name==1.0 --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    with pytest.raises(PartMissing) as raised:
        packages(wanted)
    assert "wanted.txt" in str(raised.value)
    assert [one.name for one in cache.iterdir()] == [".lock-python"]


def test_nothing_wanted_is_fetched_once(cache, tmp_path):
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("# nothing\n", encoding="utf-8")
    said = []
    first, again = packages(wanted, said.append), packages(wanted, said.append)
    assert first == again
    assert first.is_dir()
    assert len(said) == 1
