"""The filters of an export as people read them: in the head of a report and in a workbook. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from stream_app.exports.columns import Column, Kind
from stream_app.exports.filters.local_time import start_of
from stream_app.exports.formats.base import Document
from stream_app.exports.formats.file_words import FileWords
from stream_app.exports.formats.identifiers import is_identifier
from stream_app.messages.catalogue import text
from stream_app.text_style import TextStyle

SHOWN_VALUES = 20
"""Number of a filter's values that are shown. The manifest has all."""

_ORDER = ("gt", "gte", "lt", "lte")
"""Lower bounds are shown before upper ones, and other operators before both."""

_TIMES = (Kind.TIMESTAMPTZ, Kind.TIMESTAMP, Kind.DATE)
_NUMBERS = (Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT)


@dataclass(frozen=True, slots=True)
class FilterWords:
    """Writes filters in the language, locale and time zone of a file."""

    columns: Mapping[str, Column]
    style: TextStyle
    words: FileWords

    @classmethod
    def of(cls, document: Document, style: TextStyle, words: FileWords) -> "FilterWords":
        """Return the writer for the columns of ``document``."""
        return cls({item.name: item for item in document.columns}, style, words)

    def line(self, filters: Mapping[str, Any]) -> str:
        """Return all filters in one line; empty for none."""
        return "; ".join(self._parts(filters))

    def _parts(self, filters: Mapping[str, Any]) -> Iterator[str]:
        for column, wanted in filters.items():
            item = self.columns.get(column)
            name = column if item is None else item.title
            operators = dict(wanted) if isinstance(wanted, dict) else {"eq": wanted}
            if (days := self._days(operators, item)) is not None:
                yield text(self.words.language, "files.days", name=name, days=days)
                del operators["gte"], operators["lt" if "lt" in operators else "lte"]
            for operator, value in sorted(operators.items(), key=_rank):
                if operator == "is_null" or value is None:
                    is_empty = bool(value) if operator == "is_null" else operator == "eq"
                    yield f"{name} {self._empty if is_empty else self._not_empty}"
                else:
                    sign = text(self.words.language, f"files.operators.{operator}")
                    yield f"{name} {sign} {self._value(value, item)}"

    @property
    def _empty(self) -> str:
        return text(self.words.language, "files.empty")

    @property
    def _not_empty(self) -> str:
        return text(self.words.language, "files.not_empty")

    def _value(self, value: Any, item: Column | None) -> str:
        if isinstance(value, list):
            shown = ", ".join(self._value(each, item) for each in value[:SHOWN_VALUES])
            more = len(value) - SHOWN_VALUES
            if more <= 0:
                return shown
            counted = self.style.number(more)
            more_values = text(self.words.language, "files.more_values", number=counted)
            return f"{shown} {more_values}"
        if isinstance(value, bool):
            return self.words.boolean(value)
        if item is not None and item.kind in _NUMBERS:
            return self._number(value, item)
        if isinstance(value, str) and (item is None or item.kind in _TIMES):
            return self._time(value)
        return str(value)

    def _number(self, value: Any, item: Column) -> str:
        rules = self.style.rules
        if rules is None:
            return str(value)
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            return str(value)
        if not number.is_finite():
            return str(value)
        return f"{number:f}".replace(".", rules.decimal) if is_identifier(item) else rules.number_text(number)

    def _days(self, operators: Mapping[str, Any], item: Column | None) -> str | None:
        """Return the days of a filter, or ``None``: between two midnights, or from one date to another."""
        if item is not None and item.kind not in _TIMES:
            return None
        first, end, last = (self._moment(operators.get(name)) for name in ("gte", "lt", "lte"))
        if "lt" in operators:
            is_whole = end is not None and end.time() == time()
            last = end - timedelta(days=1) if end is not None and is_whole and end > datetime.min else None
        elif not (_is_date(operators.get("gte")) and _is_date(operators.get("lte"))):
            return None
        if first is None or last is None or first > last or first.time() != time():
            return None
        if last == first:
            return self._date(first)
        return text(self.words.language, "files.period", first=self._date(first), last=self._date(last))

    def _moment(self, value: object) -> datetime | None:
        """Return a time as a clock in the zone of the file shows it, or ``None`` for another text."""
        try:
            moment = datetime.fromisoformat(value) if isinstance(value, str) else None
            if moment is None or moment.tzinfo is None:
                return moment
            zone = self.style.zone or UTC
            shown = moment.astimezone(zone).replace(tzinfo=None)
            midnight = datetime.combine(shown, time())
            begins_day = isinstance(zone, ZoneInfo) and start_of(shown.date(), zone) == moment
            return midnight if begins_day else shown  # a change of clocks can skip midnight
        except (ValueError, OverflowError):
            return None

    def _date(self, moment: datetime) -> str:
        day = moment.date()
        return day.isoformat() if self.style.rules is None else self.style.rules.date_text(day)

    def _time(self, value: str) -> str:
        """Return a time in the zone of the file; only its date at midnight. Other texts are unchanged."""
        moment = self._moment(value)
        if moment is None:
            return value
        date = self._date(moment)
        if moment.time() == time():
            return date
        clock = moment.time().isoformat("auto" if moment.second or moment.microsecond else "minutes")
        return f"{date} {clock}"


def _is_date(value: object) -> bool:
    """Return whether a value is a date alone, which is its whole day."""
    return isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII) is not None


def _rank(operator: tuple[str, Any]) -> int:
    return _ORDER.index(operator[0]) if operator[0] in _ORDER else -1
