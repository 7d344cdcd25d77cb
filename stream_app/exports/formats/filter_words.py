"""The filters of an export as people read them: in the head of a report and in a workbook. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from stream_app.datasets.typed_values import TEMPORAL
from stream_app.datasets.written_times import read_moment
from stream_app.exports.columns import Column, Kind
from stream_app.exports.filters.local_time import start_of
from stream_app.exports.filters.whole_days import BEGINNINGS, without_zone, written_day
from stream_app.exports.formats.base import Document
from stream_app.exports.formats.file_words import FileWords
from stream_app.exports.formats.identifiers import is_identifier
from stream_app.messages.catalogue import text
from stream_app.text_style import TextStyle
from streaming_exporter.errors import Rejected

SHOWN_VALUES = 20
"""Number of a filter's values that are shown. The manifest has all."""

_ORDER = ("gt", "gte", "lt", "lte")
"""Lower bounds are shown before upper ones, and other operators before both."""

_NUMBERS = (Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT)


@dataclass(frozen=True, slots=True)
class _Clock:
    """What a clock shows, and whether the filter has the day and not a time."""

    at: datetime
    is_day: bool = False


@dataclass(frozen=True, slots=True)
class FilterWords:
    """Writes filters in the language, locale and time zone of a file."""

    columns: Mapping[str, Column]
    style: TextStyle
    words: FileWords
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    """The kinds of columns that filters name, also of those that are not in the file."""

    @classmethod
    def of(cls, document: Document, style: TextStyle, words: FileWords) -> "FilterWords":
        """Return the writer for the columns of ``document``."""
        columns = {item.name: item for item in document.columns}
        kinds = {name: item.kind for name, item in columns.items()}
        return cls(columns, style, words, {**kinds, **document.filter_kinds})

    def line(self, filters: Mapping[str, Any]) -> str:
        """Return all filters in one line; empty for none."""
        return "; ".join(self._parts(filters))

    def _parts(self, filters: Mapping[str, Any]) -> Iterator[str]:
        for column, wanted in filters.items():
            item = self.columns.get(column)
            name = column if item is None else item.title
            kind = self.kinds.get(column)
            operators = dict(wanted) if isinstance(wanted, dict) else {"eq": wanted}
            if (days := self._days(operators, kind)) is not None:
                yield text(self.words.language, "files.days", name=name, days=days)
                del operators["gte"], operators["lt" if "lt" in operators else "lte"]
            for operator, value in sorted(operators.items(), key=_rank):
                if operator == "is_null" or value is None:
                    is_empty = bool(value) if operator == "is_null" else operator == "eq"
                    yield f"{name} {self._empty if is_empty else self._not_empty}"
                else:
                    sign = text(self.words.language, f"files.operators.{operator}")
                    shows_date = operator in BEGINNINGS
                    yield f"{name} {sign} {self._value(value, item, kind, shows_date=shows_date)}"

    @property
    def _empty(self) -> str:
        return text(self.words.language, "files.empty")

    @property
    def _not_empty(self) -> str:
        return text(self.words.language, "files.not_empty")

    def _value(self, value: Any, item: Column | None, kind: Kind | None, *, shows_date: bool) -> str:
        if isinstance(value, list):
            shown = ", ".join(
                self._value(each, item, kind, shows_date=shows_date) for each in value[:SHOWN_VALUES]
            )
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
        if isinstance(value, str) and (kind is None or kind in TEMPORAL):
            return self._time(value, kind, shows_date=shows_date)
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

    def _days(self, operators: Mapping[str, Any], kind: Kind | None) -> str | None:
        """Return the days of a filter, or ``None``: between two midnights, or from one date to another."""
        if kind is not None and kind not in TEMPORAL:
            return None
        first, end, last = (self._clock(operators.get(name), kind) for name in ("gte", "lt", "lte"))
        if first is None or first.at.time() != time():
            return None
        if "lt" in operators:
            if end is None or end.at.time() != time() or end.at <= first.at:
                return None
            until = end.at - timedelta(days=1)
        elif last is not None and first.is_day and last.is_day and first.at <= last.at:
            until = last.at
        else:
            return None
        if until == first.at:
            return self._date(first.at)
        return text(self.words.language, "files.period", first=self._date(first.at), last=self._date(until))

    def _clock(self, value: object, kind: Kind | None) -> _Clock | None:
        """Return what a clock shows at the time that the filter compares with; ``None`` for another text.

        The clock of a column of instants is in the zone of the file. That of a column without a zone is its
        own, and times with an offset are compared with it in UTC. A day of another zone is no time here.
        """
        zone = self.style.zone or UTC
        day, name = written_day(value) or (None, None)
        if day is not None:
            is_own = name is None or (kind is Kind.TIMESTAMPTZ and name == str(zone))
            return _Clock(datetime.combine(day, time()), is_day=True) if is_own else None
        try:
            text = value if kind is None else without_zone(kind, value, "filters")
            moment = read_moment(text) if isinstance(text, str) else None
            if moment is not None and moment.tzinfo is None and kind is Kind.TIMESTAMPTZ:
                moment = moment.replace(tzinfo=UTC)
            if moment is None:
                return None
            if moment.tzinfo is None:
                return _Clock(moment)
            if kind is Kind.TIMESTAMP:
                return _Clock(moment.astimezone(UTC).replace(tzinfo=None))
            shown = moment.astimezone(zone).replace(tzinfo=None)
            midnight = datetime.combine(shown, time())
            begins_day = isinstance(zone, ZoneInfo) and start_of(shown.date(), zone) == moment
            return _Clock(midnight if begins_day else shown)  # a change of clocks can skip midnight
        except (ValueError, OverflowError, Rejected):
            return None

    def _date(self, moment: datetime) -> str:
        day = moment.date()
        return day.isoformat() if self.style.rules is None else self.style.rules.date_text(day)

    def _time(self, value: str, kind: Kind | None, *, shows_date: bool) -> str:
        """Return a time as its clock shows it. Other texts are unchanged.

        A day is its date. Midnight is one only if ``shows_date``: ``<=`` a date includes the day.
        """
        clock = self._clock(value, kind)
        if clock is None:
            return value
        date, at = self._date(clock.at), clock.at.time()
        if clock.is_day or (shows_date and at == time()):
            return date
        return f"{date} {at.isoformat('auto' if at.second or at.microsecond else 'minutes')}"


def _rank(operator: tuple[str, Any]) -> int:
    return _ORDER.index(operator[0]) if operator[0] in _ORDER else -1
