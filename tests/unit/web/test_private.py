"""Keys, tokens and ids: whole or not there, one for all, and closed to others."""

from __future__ import annotations

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker.errors import SetupError
from web.identity.vault import load_key
from web.private import write_once


def test_of_many_at_once_one_content_stays_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write_once(path, f"{number}\n"), range(32)))
    assert path.read_text().strip().isdigit()
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_key_is_made_once_and_refused_when_it_is_none(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert load_key(None, path) == load_key(None, path)
    path.chmod(0o644)
    with pytest.raises(SetupError, match="read by others"):
        load_key(None, path)
    path.chmod(0o600)
    path.write_text("")
    with pytest.raises(SetupError, match="32 random bytes"):
        load_key(None, path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SetupError, match="32 random bytes"):
        load_key(None, path)
    with pytest.raises(SetupError, match="cannot be used"):
        load_key(None, tmp_path)
    with pytest.raises(SetupError, match="LEEWAY_SECRET_KEY"):
        load_key("abc", path)
    assert load_key(base64.b64encode(b"k" * 32).decode(), path) == b"k" * 32


def test_a_disk_that_is_full_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_once(tmp_path / "secret", "text")
    assert list(tmp_path.iterdir()) == []
