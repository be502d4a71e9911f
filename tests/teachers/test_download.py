"""Downloads: once, checked, and with messages that say what to do. No network but 127.0.0.1."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kd_plugin.download import cache_dir, download, sha256_of
from kd_plugin.errors import KDError

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WORDS = {"what": "the Obama set", "instead": "fetch it by hand and pass --data=FILE.zip"}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "file.bin").write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


def test_cache_dir_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_CACHE", "/own/place")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/own/place")
    monkeypatch.delenv("KD_CACHE")
    assert cache_dir() == Path("/xdg/kd_plugin")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_dir() == Path("/home/someone/.cache/kd_plugin")
    monkeypatch.setenv("KD_CACHE", "~/kd")
    assert cache_dir() == Path("/home/someone/kd")


def test_sha256_of_reads_past_one_chunk(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "big").write_bytes(content)
    assert sha256_of(tmp_path / "big") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_file_is_fetched_once(cache: Path, server: str, sha256: str | None) -> None:
    path = download(f"{server}/file.bin", "sub/mine.bin", sha256=sha256, **WORDS)
    assert path == cache / "sub" / "mine.bin"
    assert path.read_bytes() == CONTENT
    assert download("http://127.0.0.1:1/gone", "sub/mine.bin", sha256=sha256, **WORDS) == path


def test_another_content_is_refused_and_leaves_nothing(cache: Path, server: str) -> None:
    with pytest.raises(KDError) as caught:
        download(f"{server}/file.bin", "mine.bin", sha256="0" * 64, **WORDS)
    message = str(caught.value)
    assert message.startswith(f"the Obama set: {server}/file.bin sent something else than expected")
    assert SHA256 in message
    assert message.endswith("; fetch it by hand and pass --data=FILE.zip")
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_noticed(cache: Path) -> None:
    cache.mkdir()
    (cache / "mine.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(KDError, match=r"mine\.bin is damaged or another file .*; delete it and run again"):
        download("http://127.0.0.1:1/file", "mine.bin", sha256=SHA256, **WORDS)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/file.bin", "file:///no/such/file.bin"])
def test_no_connection(cache: Path, url: str) -> None:
    with pytest.raises(KDError) as caught:
        download(url, "mine.bin", **WORDS)
    assert str(caught.value).startswith(f"the Obama set: could not download {url} (")
    assert str(caught.value).endswith("; fetch it by hand and pass --data=FILE.zip")
    assert list(cache.iterdir()) == []


def test_the_server_says_no(cache: Path, server: str) -> None:
    with pytest.raises(KDError, match=r"could not download .*nothing\.bin \(HTTP Error 404: .*\); fetch it by hand"):
        download(f"{server}/nothing.bin", "mine.bin", **WORDS)


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(KDError, match=r"cannot write to the cache .*/file/cache \(.*\); set KD_CACHE to a folder"):
        download("http://127.0.0.1:1/file", "mine.bin", **WORDS)
