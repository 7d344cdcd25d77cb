"""Downloads of several files, against a server that breaks off on purpose."""

import errno
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from producers.__main__ import cli
from producers.arguments import parse_split
from streaming_exporter import download_parts, downloads
from streaming_exporter.client import CHUNK_BYTES, Client
from streaming_exporter.download_parts import Part
from streaming_exporter.downloads import fetch_all
from streaming_exporter.errors import ApiError, DownloadError, UsageError
from streaming_exporter.file_names import save
from tests.unit.producers.fake_server import FakeServer
from tests.waiting import patient

JOB = uuid4()
PATH = f"/exports/jobs/{JOB}"
CONTENTS = [b"id\n" + b"12345678\n" * 60_000, b"id\n4\n", b"id\n5\n6\n"]
NAMES = [f"ledger-{number:05}.csv" for number in (1, 2, 3)]


@pytest.fixture
def api(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0)
    with Client(server.url, "the-token") as opened:
        yield opened


def listed(server: FakeServer, *, pages: bool = False, only: int | None = None) -> None:
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
        if only in (None, number)
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


def test_a_proxy_that_does_not_find_the_list_of_files_is_an_error(
    server: FakeServer, api: Client, tmp_path: Path
) -> None:
    """An API of version 0.1 has no such list, and its 404 has a code."""
    server.add(f"{PATH}/files?limit=1000", 404, b"default backend - 404")
    with pytest.raises(ApiError, match="does not answer as the exporter's API does"):
        fetch_all(api, JOB, tmp_path)
    assert len(server.seen) == 1


def test_an_interrupted_file_goes_on_where_it_stopped(
    server: FakeServer, api: Client, tmp_path: Path
) -> None:
    listed(server)
    for name in NAMES[1:]:  # not by the call that fails, which stops other files wherever they are
        (tmp_path / name).write_bytes(ALL[name])
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
    assert stores == [("/store/1", f"bytes={CHUNK_BYTES}-")], "what is there stays"


def test_a_store_without_ranges_sends_all_again(server: FakeServer, api: Client, tmp_path: Path) -> None:
    listed(server)
    served(server, 2, 3)
    server.add("/store/1", 200, CONTENTS[0][:300_000], **{"Content-Length": str(len(CONTENTS[0]))})
    server.add("/store/1", 200, CONTENTS[0])
    fetch_all(api, JOB, tmp_path)
    assert found(tmp_path) == ALL


@pytest.mark.parametrize("left", [b"wrong", b"\0" * len(CONTENTS[0]), CONTENTS[0] + b"more"])
def test_a_file_begins_anew_if_what_is_left_of_it_is_damaged(
    server: FakeServer, api: Client, tmp_path: Path, left: bytes
) -> None:
    """A machine that stopped can leave bytes that were never written."""
    listed(server)
    served(server)
    digest = hashlib.sha256(CONTENTS[0]).hexdigest()
    (tmp_path / f".{NAMES[0]}.{digest[:16]}.part").write_bytes(left)
    steps: list[tuple[int, int]] = []
    fetch_all(api, JOB, tmp_path, lambda done, total: steps.append((done, total)))
    assert found(tmp_path) == ALL
    assert steps[-1] == (sum(map(len, CONTENTS)),) * 2


def test_two_downloads_into_one_folder_do_not_disturb_each_other(
    server: FakeServer, api: Client, tmp_path: Path
) -> None:
    """The second one runs from its start to its end after the first one has written a part of the file."""
    listed(server, only=1)
    served(server, 1)
    second: list[Path] = []

    def progress(done: int, total: int) -> None:
        if CHUNK_BYTES < done < total and not second:
            second.extend(fetch_all(api, JOB, tmp_path))

    first = fetch_all(api, JOB, tmp_path, progress)
    assert first == second == [tmp_path / NAMES[0]]
    assert found(tmp_path) == {NAMES[0]: CONTENTS[0]}


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_download_that_is_cancelled_writes_nothing_more(
    server: FakeServer, api: Client, tmp_path: Path, calls: int
) -> None:
    listed(server, only=1)
    served(server, 1)
    seen: list[int] = []

    def progress(done: int, _: int) -> None:
        seen.append(done)
        if len(seen) >= calls:
            raise DownloadError("the download was cancelled")

    with pytest.raises(DownloadError, match="was cancelled"):
        fetch_all(api, JOB, tmp_path, progress)
    assert len(seen) == calls, "it is not tried again"
    kept = b"".join(found(tmp_path).values())
    assert kept == CONTENTS[0][: seen[-2] if calls > 1 else 0]


def test_a_file_to_which_another_program_writes_is_not_verified(
    server: FakeServer, api: Client, tmp_path: Path
) -> None:
    """Clients of version 0.2 append to the part without its lock."""
    listed(server, only=1)
    served(server, 1)

    def progress(done: int, total: int) -> None:
        if done == total:
            (part,) = tmp_path.glob(".*.part")
            with part.open("ab") as other:
                other.write(b"\0" * 1_000_000)

    with pytest.raises(DownloadError, match="was damaged on the way: 1524288 of 540003 bytes"):
        fetch_all(api, JOB, tmp_path, progress)
    assert found(tmp_path) == {}
    fetch_all(api, JOB, tmp_path)
    assert found(tmp_path) == {NAMES[0]: CONTENTS[0]}


def test_a_part_that_gets_its_name_before_it_is_locked_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock = tmp_path / ".x.part", download_parts._lock
    path.write_bytes(b"the other download")

    def late(file: BinaryIO) -> bool:
        if not (tmp_path / "x").exists():
            path.rename(tmp_path / "x")
        return lock(file)

    monkeypatch.setattr(download_parts, "_lock", late)
    with Part(path) as part:
        assert (part.path, part.size) == (path, 0)
        part.write(b"mine")
    assert found(tmp_path) == {"x": b"the other download", ".x.part": b"mine"}


def test_a_file_with_other_content_than_listed_is_not_kept(
    server: FakeServer, api: Client, tmp_path: Path
) -> None:
    listed(server)
    served(server, 2, 3)
    server.add("/store/1", 200, CONTENTS[0][:-1] + b"?")
    with pytest.raises(DownloadError, match="was damaged on the way"):
        fetch_all(api, JOB, tmp_path)
    assert NAMES[0] not in found(tmp_path)
    server.answers["/store/1"] = []
    served(server, 1)
    fetch_all(api, JOB, tmp_path)
    assert found(tmp_path) == ALL


def test_no_other_file_is_replaced_unless_asked(server: FakeServer, api: Client, tmp_path: Path) -> None:
    """people A10: the new file's name gets a number, also of one of several files."""
    listed(server)
    served(server)
    (tmp_path / NAMES[1]).write_bytes(b"mine!")
    paths = fetch_all(api, JOB, tmp_path)
    other = "ledger-00002 (2).csv"
    assert [path.name for path in paths] == [NAMES[0], other, NAMES[2]]
    assert found(tmp_path) == {**ALL, NAMES[1]: b"mine!", other: CONTENTS[1]}
    assert fetch_all(api, JOB, tmp_path) == paths, "the same download again changes nothing"
    assert found(tmp_path) == {**ALL, NAMES[1]: b"mine!", other: CONTENTS[1]}
    served(server, 2)
    fetch_all(api, JOB, tmp_path, overwrite=True)
    assert found(tmp_path) == {**ALL, other: CONTENTS[1]}


def test_an_interrupted_download_goes_on_beside_another_file_of_the_name(
    server: FakeServer, api: Client, tmp_path: Path
) -> None:
    """people A10."""
    listed(server)
    served(server, 2, 3)
    server.add("/store/1", 200, CONTENTS[0][:300_000], **{"Content-Length": str(len(CONTENTS[0]))})
    server.add("/store/1", 403, b"")
    (tmp_path / NAMES[0]).write_bytes(b"mine!")
    with pytest.raises(DownloadError, match="answered 403"):
        fetch_all(api, JOB, tmp_path)
    server.answers["/store/1"] = []
    server.add(
        "/store/1", 206, CONTENTS[0][CHUNK_BYTES:], **{"Content-Range": f"bytes {CHUNK_BYTES}-540002/540003"}
    )
    server.seen.clear()
    fetch_all(api, JOB, tmp_path)
    assert found(tmp_path) == {**ALL, NAMES[0]: b"mine!", "ledger-00001 (2).csv": CONTENTS[0]}
    assert ("/store/1", f"bytes={CHUNK_BYTES}-") in [(path, seen.get("Range")) for path, seen in server.seen]


@pytest.mark.parametrize("command", ["download", "watch"])
def test_commands_number_the_file_or_replace_it_when_asked(
    server: FakeServer, tmp_path: Path, command: str
) -> None:
    """people A10: a single file, too."""
    server.add(
        PATH, 200, {"export_job_id": str(JOB), "status": "completed", "export_type": "l", "format": "csv"}
    )
    listed(server, only=1)
    served(server, 1)
    name = NAMES[0]
    (tmp_path / name).write_bytes(b"mine!")
    arguments = [command, str(JOB), "--api-url", server.url, "--token", "t", "--output", str(tmp_path)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "ledger-00001 (2).csv" in result.output
    assert found(tmp_path) == {name: b"mine!", "ledger-00001 (2).csv": CONTENTS[0]}
    result = CliRunner().invoke(cli, [*arguments, "--overwrite"])
    assert result.exit_code == 0, result.output
    assert found(tmp_path)[name] == CONTENTS[0]


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("ledger-2026-11-26.csv", "ledger-2026-11-26 (2).csv"),
        ("ledger-2026-11-26.csv.gz", "ledger-2026-11-26 (2).csv.gz"),
        ("v1.2-2026.ndjson.zst", "v1.2-2026 (2).ndjson.zst"),
        ("v1.2", "v1 (2).2"),
        ("plain", "plain (2)"),
    ],
)
def test_names_with_numbers(tmp_path: Path, name: str, second: str) -> None:
    third = second.replace("(2)", "(3)")
    for expected in (name, second, third):
        part = tmp_path / ".part"
        part.write_text(expected)
        assert save(part, tmp_path / name) == tmp_path / expected
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        path: path for path in (name, second, third)
    }


def test_what_is_there_already_is_not_fetched_again(server: FakeServer, api: Client, tmp_path: Path) -> None:
    listed(server)
    for name, content in ALL.items():
        (tmp_path / name).write_bytes(content)
    fetch_all(api, JOB, tmp_path)
    assert not [path for path, _ in server.seen if path.startswith("/store")]


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503])
def test_an_api_that_is_away_for_a_moment_does_not_end_a_download(
    server: FakeServer, api: Client, tmp_path: Path, status: int
) -> None:
    server.add(f"{PATH}/files/1", status, {"title": "later"}, **{"Retry-After": "0"})
    listed(server)
    served(server)
    steps: list[tuple[int, int]] = []
    fetch_all(api, JOB, tmp_path, lambda done, total: steps.append((done, total)))
    assert found(tmp_path) == ALL
    assert steps[-1] == (sum(map(len, CONTENTS)),) * 2


def test_an_error_of_a_later_file_ends_all_downloads_at_once(
    server: FakeServer, api: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first file can take hours."""
    listed(server)
    served(server, 1, 3)
    server.answers[f"{PATH}/files/2"] = [(410, {"title": "Gone", "detail": "The file has expired"}, {})]
    fill = downloads._Download._fill
    ended: list[bool] = []

    def slowly(download: downloads._Download, part: Part) -> None:
        if download.file.number == 1:
            try:
                download.progress.pause(patient(20))
            finally:
                ended.append(download.progress.is_stopped)
        fill(download, part)

    monkeypatch.setattr(downloads._Download, "_fill", slowly)
    began = time.monotonic()
    with pytest.raises(ApiError, match="The file has expired"):
        fetch_all(api, JOB, tmp_path)
    assert time.monotonic() - began < patient(15)
    assert ended == [True]
    assert NAMES[0] not in found(tmp_path)


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


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", ["replace", "unlink"])
def test_a_file_that_has_its_name_has_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The process is killed before one of the steps."""

    def kill(*_: object, **__: object) -> None:
        raise Killed

    part, target = tmp_path / ".part", tmp_path / "ledger.csv"
    part.write_bytes(b"all")
    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(Path, step, kill)
        save(part, target)
    assert target.read_bytes() == b"all"
    assert {path.name for path in tmp_path.iterdir()} <= {".part", "ledger.csv"}
    with Part(part) as again:
        again.write(b"other")
    assert target.read_bytes() == b"all"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, errno.EMLINK])
def test_a_folder_without_hard_links_gets_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no hard links")

    monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "ledger.csv"
    for content in (b"one", b"two"):
        part = tmp_path / ".part"
        part.write_bytes(content)
        save(part, target)
    assert found(tmp_path) == {"ledger.csv": b"one", "ledger (2).csv": b"two"}
