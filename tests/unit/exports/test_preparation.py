"""Which requests are prepared in the event loop: none whose values take long."""

from typing import Any

import pytest

from stream_app.exports.preparation import FEW_VALUES, has_few_values
from streaming_exporter.events import ExportRequest

MANY = [str(number) for number in range(FEW_VALUES + 1)]


@pytest.mark.parametrize(
    "values",
    [
        {"filters": {"id": {"in": MANY}}},
        {"filters": {"id": {"in": MANY[:60]}, "other": {"in": MANY[:60]}}},
        {"filters": {"name": {"eq": "x" * 200_000}}},
        {"parameters": {"names": MANY}},
        {"claims": {"regions": MANY}},
        {"filters": {"id": {"in": MANY[:60]}}, "claims": {"regions": MANY[:60]}},
    ],
    ids=["list", "lists", "long text", "parameter", "claim", "list and claim"],
)
def test_a_request_with_many_values_is_prepared_in_a_thread(values: dict[str, Any]) -> None:
    assert not has_few_values(request(**values))


def test_a_request_with_few_values_is_prepared_at_once() -> None:
    assert has_few_values(request())
    assert has_few_values(request(filters={"id": {"in": MANY[:50]}}, claims={"regions": ["north"]}))


def request(**values: Any) -> ExportRequest:
    return ExportRequest(user_id="u", export_type="ledger", format="csv", **values)
