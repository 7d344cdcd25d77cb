"""The rest of a file, from any byte on, whatever chunks it comes in."""

from collections.abc import AsyncIterator

from streaming_exporter.skipped_bytes import async_bytes_from, bytes_from
from tests.rows import each_row

CONTENT = b"0123456789"


@each_row("size", [1, 3, 10])
@each_row("start", range(11))
async def test_the_bytes_from_the_first_one_on_are_left(start: int, size: int) -> None:
    chunks = [CONTENT[at : at + size] for at in range(0, len(CONTENT), size)]

    async def arriving() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    assert b"".join(bytes_from(iter(chunks), start)) == CONTENT[start:]
    assert b"".join([chunk async for chunk in async_bytes_from(arriving(), start)]) == CONTENT[start:]
