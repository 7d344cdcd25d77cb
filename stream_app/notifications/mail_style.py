"""How a mail writes numbers, days and times, in its language, locale and time zone. Pure."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo

from stream_app.locales import find_locale
from stream_app.messages.catalogue import known_language, text
from stream_app.text_style import TextStyle
from stream_app.time_zones import find_zone
from streaming_exporter.errors import Rejected

_USUAL = {"en": "en_GB"}
"""The locale of dates by the language, where the language alone means another one."""

_DAY = "d MMM y"
_INTERVAL = "yMMMd"


@dataclass(frozen=True, slots=True)
class MailStyle:
    """A language, the locale of its dates (a name of Babel), and a time zone with its name for people."""

    language: str
    locale: str
    numbers: TextStyle
    zone: ZoneInfo | None
    zone_name: str

    @classmethod
    def of(cls, language: str, options: object, timezone: str | None) -> Self:
        """Return the style of a mail about a job.

        Args:
            language: the language of the mail.
            options: the options of the request, which can be invalid.
            timezone: the time zone of the file; by default that of the options, or else UTC.
        """
        known = options if isinstance(options, Mapping) else {}
        numbers = TextStyle.of_stored(known or {"language": language}, timezone)
        locale = _USUAL.get(language, language)
        for tag in (known.get("locale"), known.get("language")):
            if isinstance(tag, str) and known_language(tag) == language:
                with suppress(Rejected):
                    locale = find_locale(tag).tag.replace("-", "_")
                    break
        if locale == "en":
            locale = _USUAL["en"]
        name = "UTC" if numbers.zone is None else numbers.zone.key
        return cls(language, locale, numbers, numbers.zone, name)

    def in_zone(self, timezone: str | None) -> Self:
        """Return this style with another time zone; an unknown one changes nothing."""
        with suppress(Rejected):
            if timezone is not None:
                zone = ZoneInfo(find_zone(timezone).sql_name)
                return type(self)(self.language, self.locale, self.numbers, zone, zone.key)
        return self

    def number(self, number: int) -> str:
        """Return a whole number with groups of digits."""
        return self.numbers.number(number)

    def size(self, size: int) -> str:
        """Return a number of bytes with a decimal unit."""
        return self.numbers.size(size)

    def day(self, day: date) -> str:
        """Return a day, such as ``16 Nov 2026``."""
        from babel.dates import format_date, format_skeleton

        if self.locale == "en_GB":
            return format_date(day, _DAY, locale=self.locale)
        return format_skeleton(_INTERVAL, datetime(day.year, day.month, day.day), locale=self.locale)

    def moment(self, time: datetime) -> str:
        """Return a time without its zone, such as ``16 Nov 2026, 06:00``."""
        from babel.dates import format_time

        local = time.astimezone(self.zone or UTC)
        clock = format_time(local.time(), "short", locale=self.locale)
        return text(self.language, "mail.moment", day=self.day(local.date()), time=clock)

    def zoned(self, shown: str) -> str:
        """Return a text about times with the name of their zone."""
        if self.zone_name == "UTC":
            return text(self.language, "mail.in_utc", text=shown)
        return text(self.language, "mail.in_zone", text=shown, zone=self.zone_name)

    def days(self, first: date, last: date) -> str:
        """Return all days from ``first`` to ``last``, as one text."""
        from babel.dates import format_interval

        if first == last:
            return self.day(first)
        # The thin spaces of some locales around the dash are wide in mail programs.
        shown = str(format_interval(first, last, _INTERVAL, locale=self.locale))
        return shown.replace("\u2009", "")

    def period(self, start: datetime, end: datetime) -> str:
        """Return the time from ``start`` until before ``end``: as days, if it has whole days."""
        first, last = (time.astimezone(self.zone or UTC).replace(tzinfo=None) for time in (start, end))
        if first < last and first.time() == last.time() == datetime.min.time():
            return self.days(first.date(), (last - timedelta(days=1)).date())
        return text(self.language, "mail.from_to", first=self.moment(start), last=self.moment(end))
