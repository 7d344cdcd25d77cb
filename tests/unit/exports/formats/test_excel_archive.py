"""The zip writer, against the standard library's reader."""

import io
from datetime import UTC, datetime
from zipfile import ZipFile

import pytest

from stream_app.exports.formats.excel.archive import Archive

MODIFIED = datetime(2026, 11, 24, 6, 30, 11, tzinfo=UTC)


def test_members_can_be_read() -> None:
    archive = Archive(MODIFIED)
    streamed = [bytes([number]) * 1000 for number in range(100)]
    content = b"".join(
        [
            archive.add("a.xml", b"<a/>"),
            *archive.stream("ü/b.xml", streamed),
            archive.add("empty", b""),
            archive.close(),
        ]
    )

    with ZipFile(io.BytesIO(content)) as read:
        assert read.testzip() is None
        assert read.namelist() == ["a.xml", "ü/b.xml", "empty"]
        assert read.read("a.xml") == b"<a/>"
        assert read.read("ü/b.xml") == b"".join(streamed)
        assert {item.date_time for item in read.infolist()} == {(2026, 11, 24, 6, 30, 10)}
        assert {item.create_version for item in read.infolist()} == {20}
    assert b"PK\x06\x06" not in content


@pytest.mark.slow
def test_zip64_records_appear_once_a_member_passes_four_gibibytes() -> None:
    archive = Archive(MODIFIED)
    block = bytes(16 * 2**20)
    count = 257
    file = io.BytesIO()
    for piece in archive.stream("large", (block for _ in range(count))):
        file.write(piece)
    file.write(archive.add("after", b"small"))
    file.write(archive.close())

    with ZipFile(file) as read:
        large, after = read.infolist()
        assert large.file_size == count * len(block) > 2**32
        assert (large.extract_version, after.extract_version) == (45, 20)
        assert read.read("after") == b"small"
        assert read.testzip() is None
