"""Downloads: once, whole, checked, and with messages that say what to do. No network but 127.0.0.1."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kd_plugin import download as module
from kd_plugin.download import cache_dir, download, sha256_of
from kd_plugin.errors import KDError

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WORDS = {"what": "the Obama set", "instead": "fetch it by hand and pass --data=FILE.zip"}
HALF = len(CONTENT) // 2

Answer = Callable[["Server", BaseHTTPRequestHandler], None]


class Server:
    """Answers request number k with the k-th of the given answers, the last one for ever; notes what was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [whole]
        self.asked: list[str | None] = []  # the Range of each request
        self.content, self.etag = CONTENT, '"one"'
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.headers["Range"])
                outer.answers[min(len(outer.asked), len(outer.answers)) - 1](outer, self)

            def log_message(self, *args: object) -> None:
                pass

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_address[1]}/file.bin"


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str | int) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()
    handler.wfile.write(body)


def whole(server: Server, handler: BaseHTTPRequestHandler) -> None:
    """A good server: the rest where it is asked for and the tag is right, else all of it."""
    asked = handler.headers["Range"]
    if asked and handler.headers["If-Range"] == server.etag:
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        span = f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
        rest = server.content[start:]
        send(handler, rest, 206, Content_Range=span, Content_Length=len(rest), ETag=server.etag)
    else:
        send(handler, server.content, Content_Length=len(server.content), ETag=server.etag)


def cut(server: Server, handler: BaseHTTPRequestHandler) -> None:
    """Promises everything and stops half way."""
    send(handler, server.content[:HALF], Content_Length=len(server.content), ETag=server.etag)


def cut_without_tag(server: Server, handler: BaseHTTPRequestHandler) -> None:
    send(handler, server.content[:HALF], Content_Length=len(server.content))


def lies_short(server: Server, handler: BaseHTTPRequestHandler) -> None:
    """Says that the file is shorter than it is."""
    send(handler, server.content[:HALF], Content_Length=HALF, ETag=server.etag)


def part_without_range(server: Server, handler: BaseHTTPRequestHandler) -> None:
    send(handler, server.content[:10], 206, Content_Length=10)


def wrong_bytes(server: Server, handler: BaseHTTPRequestHandler) -> None:
    send(handler, b"<html>log in first</html>", Content_Length=25)


def status(code: int) -> Answer:
    return lambda server, handler: send(handler, b"", code, Content_Length=0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "_PAUSES_SEC", (0.0, 0.0))
    made = Server()
    with made.httpd:
        thread = threading.Thread(target=made.httpd.serve_forever, args=[0.02])
        thread.start()
        yield made
        made.httpd.shutdown()
        thread.join()


def files(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.suffix != ".lock"}


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
def test_a_file_is_fetched_once(cache: Path, server: Server, sha256: str | None) -> None:
    path = download(server.url, "sub/mine.bin", sha256=sha256, **WORDS)
    assert path == cache / "sub" / "mine.bin"
    assert path.read_bytes() == CONTENT
    assert download("http://127.0.0.1:1/gone", "sub/mine.bin", sha256=sha256, **WORDS) == path
    assert server.asked == [None]
    assert files(cache / "sub") == ({"mine.bin"} if sha256 else {"mine.bin", "mine.bin.sha256"})


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ([cut, whole], [None, f"bytes={HALF}-"]),
        ([cut_without_tag, whole], [None, None]),
        ([status(500), status(503), whole], [None, None, None]),
        ([cut, status(500), whole], [None, f"bytes={HALF}-", f"bytes={HALF}-"]),
        ([cut, status(416), whole], [None, f"bytes={HALF}-", None]),
        ([wrong_bytes, whole], [None, None]),
        ([lies_short, whole], [None, None]),
        ([cut, part_without_range, whole], [None, f"bytes={HALF}-", f"bytes={HALF}-"]),
    ],
    ids=["cut", "cut, no tag", "500", "cut, then 500", "416", "wrong bytes", "too short a length", "206 without range"],
)
def test_trouble_that_another_try_mends(
    answers: list[Answer], asked: list[str | None], cache: Path, server: Server
) -> None:
    server.answers = answers
    assert download(server.url, "mine.bin", sha256=SHA256, **WORDS).read_bytes() == CONTENT
    assert server.asked == asked
    assert files(cache) == {"mine.bin"}


def test_a_file_that_changed_meanwhile_is_not_glued_together(cache: Path, server: Server) -> None:
    def changed(server: Server, handler: BaseHTTPRequestHandler) -> None:
        server.content, server.etag = CONTENT[::-1], '"two"'
        whole(server, handler)

    server.answers = [cut, changed]
    assert download(server.url, "mine.bin", **WORDS).read_bytes() == CONTENT[::-1]


def test_a_cut_transfer_goes_on_in_the_next_run(cache: Path, server: Server) -> None:
    server.answers = [cut, status(500), status(500), whole]
    with pytest.raises(KDError, match=r"HTTP 500 .*; put it at .*mine\.bin, or fetch it by hand"):
        download(server.url, "mine.bin", sha256=SHA256, **WORDS)
    assert (cache / "mine.bin.part").stat().st_size == HALF
    assert download(server.url, "mine.bin", sha256=SHA256, **WORDS).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={HALF}-"


@pytest.mark.parametrize(
    ("answer", "tries", "reason"),
    [
        (status(404), 1, "HTTP 404 Not Found"),
        (status(403), 1, "HTTP 403 Forbidden"),
        (status(500), 3, "HTTP 500 Internal Server Error"),
        (wrong_bytes, 3, f"it sent another file: SHA-256 .*, expected {SHA256}"),
        (cut_without_tag, 3, f"the transfer ended after {HALF} of {len(CONTENT)} bytes"),
    ],
    ids=["404", "403", "500", "wrong bytes", "always cut"],
)
def test_trouble_that_stays(answer: Answer, tries: int, reason: str, cache: Path, server: Server) -> None:
    server.answers = [answer]
    with pytest.raises(KDError, match=rf"^the Obama set: could not download {server.url} \({reason}\); put it at .*"):
        download(server.url, "mine.bin", sha256=SHA256, **WORDS)
    assert len(server.asked) == tries
    assert "mine.bin" not in files(cache)


def test_a_server_that_stalls(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_SEC", 0.3)
    release = threading.Event()

    def stalls(server: Server, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.send_header("ETag", server.etag)
        handler.end_headers()
        handler.wfile.write(CONTENT[:HALF])
        handler.wfile.flush()
        release.wait(10)

    server.answers = [stalls, whole]
    try:
        assert download(server.url, "mine.bin", sha256=SHA256, **WORDS).read_bytes() == CONTENT
    finally:
        release.set()
    assert server.asked == [None, f"bytes={HALF}-"]


def test_several_at_once_fetch_it_once(cache: Path, server: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: download(server.url, "mine.bin", sha256=SHA256, **WORDS), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert server.asked == [None]


def test_a_damaged_file_in_the_cache_is_noticed(cache: Path) -> None:
    cache.mkdir()
    (cache / "mine.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(KDError, match=r"mine\.bin is damaged or another file .*; delete it and run again"):
        download("http://127.0.0.1:1/file", "mine.bin", sha256=SHA256, **WORDS)


def test_a_file_without_a_published_checksum_stays_what_it_first_was(cache: Path, server: Server) -> None:
    path = download(server.url, "mine.bin", **WORDS)
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(KDError, match=r"another file .* expected .*; delete it and mine\.bin\.sha256 and run again"):
        download(server.url, "mine.bin", **WORDS)
    path.unlink()
    assert download(server.url, "mine.bin", **WORDS).read_bytes() == CONTENT


def test_content_without_a_checksum_is_checked_before_it_gets_its_name(cache: Path, server: Server) -> None:
    asked: list[Path] = []

    def problem_of(path: Path) -> str:
        asked.append(path)
        return "" if path.read_bytes() == CONTENT else "no whole zip file"

    server.answers = [wrong_bytes, whole]
    path = download(server.url, "mine.bin", problem_of=problem_of, **WORDS)
    assert path.read_bytes() == CONTENT
    assert [each.name for each in asked] == ["mine.bin.part"] * 2
    download(server.url, "mine.bin", problem_of=problem_of, **WORDS)
    assert len(asked) == 2  # from the first use on, the kept hash is enough

    server.answers = [wrong_bytes]
    with pytest.raises(KDError, match=r"\(it sent another file: no whole zip file\); put it at"):
        download(server.url, "other.bin", problem_of=problem_of, **WORDS)
    (cache / "hand.bin").write_bytes(b"<html>")
    with pytest.raises(KDError, match=r"hand\.bin is another file \(no whole zip file\); delete it and run again"):
        download(server.url, "hand.bin", problem_of=problem_of, **WORDS)


def test_a_file_put_there_by_hand_is_taken(cache: Path) -> None:
    cache.mkdir()
    (cache / "mine.bin").write_bytes(CONTENT)
    assert download("http://127.0.0.1:1/file", "mine.bin", sha256=SHA256, **WORDS) == cache / "mine.bin"


def test_no_connection_says_where_to_put_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSES_SEC", (0.0, 0.0))
    with pytest.raises(KDError) as caught:
        download("http://127.0.0.1:1/file.bin", "mine.bin", **WORDS)
    message = str(caught.value)
    assert message.startswith("the Obama set: could not download http://127.0.0.1:1/file.bin (")
    assert message.endswith(f"; put it at {cache / 'mine.bin'}, or fetch it by hand and pass --data=FILE.zip")
    assert "\n" not in message
    assert files(cache) == set()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(KDError, match=r"cannot write to the cache .*/file/cache \(.*\); set KD_CACHE to a folder"):
        download("http://127.0.0.1:1/file", "mine.bin", **WORDS)
