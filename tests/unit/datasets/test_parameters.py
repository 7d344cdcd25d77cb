"""Values of a query's parameters: what a request can give, and what it is told."""

from datetime import UTC, datetime
from typing import Any

import pytest

from stream_app.datasets.models import Dataset
from stream_app.datasets.parameters import parameter_texts
from stream_app.exports.filters.relative_dates import resolve_request
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest
from tests.rows import each_row

NOW = datetime(2026, 1, 31, 13, 30, tzinfo=UTC)


def dataset(**parameter: Any) -> Dataset:
    return Dataset.model_validate({"name": "q", "query": "select :p", "parameters": {"p": parameter}})


VALID: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
    ({}, {"p": "it's"}, "it's"),
    ({}, {}, None),
    ({}, {"p": None}, None),
    ({"default": "x"}, {}, "x"),
    ({"default": "x"}, {"p": None}, "x"),
    ({"default": "a", "choices": ["a", "b"]}, {"p": None}, "a"),
    ({"type": "date", "default": "today"}, {"p": None}, "2026-01-31"),
    ({"required": True}, {"p": ""}, ""),
    ({"choices": ["a", "b"]}, {"p": "b"}, "b"),
    ({"type": "integer"}, {"p": "7"}, "7"),
    ({"type": "integer", "choices": [7]}, {"p": "+7"}, "7"),
    ({"type": "numeric", "choices": ["1.50"]}, {"p": 1.5}, "1.50"),
    ({"type": "numeric", "choices": [1]}, {"p": "1.0"}, "1"),
    ({"type": "float", "choices": [0.5]}, {"p": "5e-1"}, "0.5"),
    ({"type": "time", "choices": ["13:30"]}, {"p": "13:30:00.0"}, "13:30"),
    ({"type": "timestamp", "choices": ["2026-01-31T00:00:00"]}, {"p": "2026-01-31"}, "2026-01-31T00:00:00"),
    (
        {"type": "timestamptz", "choices": ["2026-01-31T00:00:00Z"]},
        {"p": "2026-01-31T02:00:00+02:00"},
        "2026-01-31T00:00:00Z",
    ),
    ({"type": "boolean"}, {"p": True}, "true"),
    ({"type": "uuid"}, {"p": "0000000000000000000000000000000A"}, "00000000-0000-0000-0000-00000000000a"),
    ({"type": "date", "default": "start_of_month"}, {}, "2026-01-01"),
    ({"type": "date", "choices": ["2026-01-31"]}, {"p": "today"}, "2026-01-31"),
    ({"type": "timestamp"}, {"p": "2026-01-31T02:00:00+02:00"}, "2026-01-31T00:00:00"),
    ({"type": "timestamptz"}, {"p": "2026-01-31T23:59:59.9999999Z"}, "2026-01-31T23:59:59.999999Z"),
    ({"type": "time"}, {"p": "23:59:59.999999999"}, "23:59:59.999999"),
    ({"type": "text", "default": "today"}, {}, "today"),
]


@each_row(("parameter", "given", "wanted"), VALID)
def test_values(parameter: dict[str, Any], given: dict[str, Any], wanted: str | None) -> None:
    described = dataset(**parameter)
    request = ExportRequest.parse({"user_id": "u", "export_type": "q", "format": "csv", "parameters": given})
    resolved = resolve_request(request, {}, NOW, parameters=described.parameters)
    assert parameter_texts(described, resolved.parameters) == {"p": wanted}


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({}, {"q": 1}, "unknown_parameter", r"^parameters.q: .*no parameter 'q'; allowed: p$"),
    ({"required": True}, {}, "missing_parameter", "^parameters.p: .*needs a value.*text"),
    ({"required": True, "choices": ["a", "b"]}, {"p": None}, "missing_parameter", "allowed: a, b"),
    ({"choices": ["a", "b"]}, {"p": "c"}, "bad_parameter_value", "^parameters.p: 'c' .*; allowed: a, b"),
    ({"type": "integer"}, {"p": 2**31}, "bad_parameter_value", "parameters.p: .*from -2147483648"),
    ({"type": "integer"}, {"p": True}, "bad_parameter_value", "whole number"),
    ({"type": "bigint"}, {"p": "1; drop table t"}, "bad_parameter_value", "whole number"),
    ({"type": "float"}, {"p": "NaN"}, "bad_parameter_value", "finite number"),
    ({"type": "boolean", "choices": [True]}, {"p": False}, "bad_parameter_value", "allowed: true"),
    ({"type": "text"}, {"p": ["a"]}, "bad_parameter_value", "expected a text"),
    ({"type": "text"}, {"p": "a\0b"}, "bad_parameter_value", "without NUL"),
    ({"type": "text"}, {"p": "a\ud800b"}, "bad_parameter_value", "without NUL"),
    ({"type": "date"}, {"p": "now-99999y"}, "bad_parameter_value", "a date such as"),
]


@each_row(("parameter", "given", "code", "reason"), REFUSED)
def test_what_is_refused(parameter: dict[str, Any], given: dict[str, Any], code: str, reason: str) -> None:
    with pytest.raises(Rejected, match=reason) as error:
        parameter_texts(dataset(**parameter), given)
    assert error.value.code == code
    assert (error.value.field or "").startswith("parameters.")


def test_a_table_has_no_parameters() -> None:
    with pytest.raises(Rejected, match=r"^parameters.p: .*allowed: no parameters"):
        parameter_texts(Dataset(name="t", table="t"), {"p": 1})


def test_dates_of_the_file_are_written_as_in_requests() -> None:
    """TOML has dates and times of its own."""
    described = dataset(type="date", choices=[NOW.date()], default=NOW.date())
    assert parameter_texts(described, {}) == {"p": "2026-01-31"}
