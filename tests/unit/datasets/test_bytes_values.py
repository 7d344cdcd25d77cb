"""A filter of bytes means what files show: base64, or the hexadecimal digits of PostgreSQL."""

from base64 import b64encode, urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.datasets.typed_values import checked_text
from stream_app.exports.columns import Column, Kind
from streaming_exporter.errors import Rejected
from tests.rows import each_row

COLUMN = Column("digest", "bytea", "bytea", Kind.BYTES)


@given(st.binary(max_size=100))
def test_the_text_of_a_file_is_the_same_bytes(content: bytes) -> None:
    for text in (b64encode(content).decode(), f"\\x{content.hex()}", f"\\x{content.hex().upper()}"):
        found = checked_text(COLUMN, text, "filters.digest")
        assert found.startswith("\\x")
        assert bytes.fromhex(found[2:]) == content


@each_row(
    "value",
    [
        "abc", "abcde", "3q2+7w", "3q2+7w=", "3q2+7x==", "3q2+\n7w==", " 3q2+7w==", "ä===", "\\336\\255",
        "\\\\x41", "\\X41", "\\xabc", "\\xzz", "\\x٤١", "deadbeef0", "0xdead", "=", "====",
        "3q2+7w==3q2+7w==", urlsafe_b64encode(b"\xff\xff\xfe").decode(), 5, True, ["3q2+7w=="],
    ],
)  # fmt: skip
def test_all_other_values_are_refused_with_both_forms(value: Any) -> None:
    with pytest.raises(Rejected, match="expected bytes in base64") as error:
        checked_text(COLUMN, value, "filters.digest")
    assert r"\xdeadbeef" in str(error.value)
    assert error.value.code == "bad_filter_value"
