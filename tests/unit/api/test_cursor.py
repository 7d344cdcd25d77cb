"""Cursors survive the way to a client and back; anything else is refused."""

from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cursor import decode, encode
from stream_app.errors import Rejected


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_round_trip(moment: datetime, job_id: UUID) -> None:
    cursor = encode((moment, job_id))
    assert decode(cursor) == (moment, job_id)
    assert cursor.replace("-", "").replace("_", "").isalnum()


@given(st.text(max_size=60))
def test_anything_else_is_refused_or_a_position(text: str) -> None:
    with suppress(Rejected):
        assert decode(text)[0].tzinfo is not None


@pytest.mark.parametrize("text", ["", "x", "é", "e30", encode((datetime(2026, 1, 1), uuid4()))])
def test_refused(text: str) -> None:
    with pytest.raises(Rejected):
        decode(text)
