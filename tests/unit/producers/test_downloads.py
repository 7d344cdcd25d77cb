"""Downloads of several files, against a server that breaks off on purpose."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from producers import download
from producers.__main__ import cli
from producers.arguments import parse_split
from producers.download import fetch_all
from streaming_exporter.client import CHUNK_BYTES, Client
from streaming_exporter.errors import ApiError, DownloadError, UsageError
from tests.unit.producers.fake_server import FakeServer

JOB = uuid4()
PATH = f"/exports/jobs/{JOB}"
CONTENTS = [b"id\n" + b"12345678\n" * 60_000, b"id\n4\n", b"id\n5\n6\n"]
NAMES = [f"ledger-{number:05}.csv" for number in (1, 2, 3)]


@pytest.fixture
def api(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0)
    with Client(server.url, "the-token") as opened:
        yield opened


def listed(server: FakeServer, *, pages: bool = False) -> None:
    files = [
        {
            "number": number,
            "file_name": name,
            "content_type": "text/csv",
            "row_count": 1,
            "file_size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "download_url": f"{PATH}/files/{number}",
        }
        for number, (name, content) in enumerate(zip(NAMES, CONTENTS, strict=True), 1)
    ]
    path = f"{PATH}/files?limit=1000"
    if pages:
        server.add(path, 200, {"files": files[:2], "next_cursor": "more"})
        server.add(f"{path}&cursor=more", 200, {"files": files[2:], "next_cursor": None})
    else:
        server.add(path, 200, {"files": files, "next_cursor": None})
    for number in (1, 2, 3):
        server.add(f"{PATH}/files/{number}", 307, Location=f"{server.url}/store/{number}")


def served(server: FakeServer, *numbers: int) -> None:
    for number in numbers or (1, 2, 3):
        server.add(f"/store/{number}", 200, CONTENTS[number - 1])


def found(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


ALL: dict[str, bytes] = dict(zip(NAMES, CONTENTS, strict=True))


@pytest.mark.parametrize("pages", [False, True])
def test_all_files_are_fetched_and_verified(
    server: FakeServer, api: Client, tmp_path: Path, pages: bool
) -> None:
    listed(server, pages=pages)
    served(server)
    steps: list[tuple[int, int]] = []
    paths = fetch_all(api, JOB, tmp_path, lambda done, total: steps.append((done, total)))
    assert paths == [tmp_path / name for name in NAMES]
    assert found(tmp_path) == ALL
    total = sum(map(len, CONTENTS))
    assert max(steps) == (total, total)


def test_an_interrupted_file_goes_on_where_it_stopped(
    server: FakeServer, api: Client, tmp_path: Path
) -> None:
    listed(server)
    served(server, 2, 3)
    server.add("/store/1", 200, CONTENTS[0][:300_000], **{"Content-Length": str(len(CONTENTS[0]))})
    server.add("/store/1", 403, b"")
    with pytest.raises(DownloadError, match="answered 403"):
        fetch_all(api, JOB, tmp_path)
    (part,) = tmp_path.glob(".ledger-00001.csv.*.part")
    assert part.read_bytes() == CONTENTS[0][:CHUNK_BYTES]
    server.answers["/store/1"] = []
    server.add(
        "/store/1", 206, CONTENTS[0][CHUNK_BYTES:], **{"Content-Range": f"bytes {CHUNK_BYTES}-540002/540003"}
    )
    server.seen.clear()
    fetch_all(api, JOB, tmp_path)
    assert found(tmp_path) == ALL
    stores = [(path, headers.get("Range")) for path, headers in server.seen if path.startswith("/store")]
    assert ("/store/1", f"bytes={CHUNK_BYTES}-") in stores
    assert ("/store/2", None) not in stores or ("/store/3", None) not in stores, "what is there stays"


def test_a_store_without_ranges_sends_all_again(server: FakeServer, api: Client, tmp_path: Path) -> None:
    listed(server)
    served(server, 2, 3)
    server.add("/store/1", 200, CONTENTS[0][:300_000], **{"Content-Length": str(len(CONTENTS[0]))})
    server.add("/store/1", 200, CONTENTS[0])
    fetch_all(api, JOB, tmp_path)
    assert found(tmp_path) == ALL


def test_a_damaged_part_is_not_continued(server: FakeServer, api: Client, tmp_path: Path) -> None:
    listed(server)
    served(server)
    digest = hashlib.sha256(CONTENTS[0]).hexdigest()
    (tmp_path / f".{NAMES[0]}.{digest[:16]}.part").write_bytes(b"wrong")
    with pytest.raises(DownloadError, match="was damaged on the way"):
        fetch_all(api, JOB, tmp_path)
    fetch_all(api, JOB, tmp_path)
    assert found(tmp_path) == ALL


def test_no_other_file_is_replaced_unless_asked(server: FakeServer, api: Client, tmp_path: Path) -> None:
    listed(server)
    served(server)
    (tmp_path / NAMES[1]).write_bytes(b"mine!")
    with pytest.raises(DownloadError, match=r"exists and has other content.*--overwrite"):
        fetch_all(api, JOB, tmp_path)
    assert found(tmp_path) == {NAMES[1]: b"mine!"}
    fetch_all(api, JOB, tmp_path, overwrite=True)
    assert found(tmp_path) == ALL


def test_what_is_there_already_is_not_fetched_again(server: FakeServer, api: Client, tmp_path: Path) -> None:
    listed(server)
    for name, content in ALL.items():
        (tmp_path / name).write_bytes(content)
    fetch_all(api, JOB, tmp_path)
    assert not [path for path, _ in server.seen if path.startswith("/store")]


def test_an_error_of_the_api_passes(server: FakeServer, api: Client, tmp_path: Path) -> None:
    server.add(f"{PATH}/files?limit=1000", 410, {"title": "Gone", "detail": "The file has expired"})
    with pytest.raises(ApiError, match="The file has expired"):
        fetch_all(api, JOB, tmp_path)


def test_the_mask_of_the_process_decides_who_can_read_the_files(
    server: FakeServer, api: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads only use the mask. To read it, a thread has to change it for all threads."""
    listed(server)
    served(server)
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", None)
            paths = fetch_all(api, JOB, tmp_path)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o640}


def test_the_command_prints_the_files(server: FakeServer, tmp_path: Path) -> None:
    listed(server)
    served(server)
    arguments = ["download", str(JOB), "--api-url", server.url, "--token", "t", "--output", str(tmp_path)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == [str(tmp_path / name) for name in NAMES]


@pytest.mark.parametrize(
    ("rows", "size", "split"),
    [
        (None, None, None),
        (5, None, {"rows": 5}),
        (None, "1048576", {"bytes": 2**20}),
        (None, "500MB", {"bytes": 500_000_000}),
        (None, "2 GiB", {"bytes": 2**31}),
        (None, "7kB", {"bytes": 7000}),
    ],
)
def test_split_options(rows: int | None, size: str | None, split: Any) -> None:
    assert parse_split(rows, size) == split


@pytest.mark.parametrize("size", ["", "MB", "1.5GB", "5 apples", "-1MB", "5iB", "9" * 20])
def test_sizes_that_are_none(size: str) -> None:
    with pytest.raises(UsageError, match=r"--split-bytes .* such as 500MB"):
        parse_split(None, size)


def test_split_has_one_measure() -> None:
    with pytest.raises(UsageError, match="cannot be used together"):
        parse_split(5, "5MB")
