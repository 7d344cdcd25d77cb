"""Cursors can be decoded again, and other texts are refused."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.pagination import decode, encode
from streaming_exporter.errors import Rejected


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_round_trip(moment: datetime, job_id: UUID) -> None:
    cursor = encode((moment, job_id))
    assert decode(cursor) == (moment, job_id)
    assert cursor.replace("-", "").replace("_", "").isalnum()


@given(st.text(max_size=60))
def test_any_text_is_refused_or_a_valid_cursor(text: str) -> None:
    with suppress(Rejected):
        assert decode(text)[0].tzinfo is not None


def test_a_moment_before_the_first_or_after_the_last_is_refused() -> None:
    for hours, moment in ((23, datetime(1, 1, 1)), (-23, datetime(9999, 12, 31, 23))):
        with pytest.raises(Rejected, match="not a cursor"):
            decode(encode((moment.replace(tzinfo=timezone(timedelta(hours=hours))), uuid4())))


def test_moments_are_in_utc() -> None:
    moment = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    assert decode(encode((moment, uuid4())))[0].isoformat() == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize("text", ["", "x", "é", "e30", encode((datetime(2026, 1, 1), UUID(int=1)))])
def test_refused(text: str) -> None:
    with pytest.raises(Rejected):
        decode(text)
