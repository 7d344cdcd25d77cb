"""How the words around the table write times and numbers."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self
from zoneinfo import ZoneInfo

from stream_app.locales import LocaleRules, find_locale
from stream_app.time_zones import find_zone
from streaming_exporter.events import Options


@dataclass(frozen=True, slots=True)
class TextStyle:
    """The time zone and the locale of a report; ``None`` for UTC and for English."""

    zone: ZoneInfo | None = None
    rules: LocaleRules | None = None

    @classmethod
    def of(cls, options: Options) -> Self:
        """Return the style of a report with these options."""
        zone = None if options.timezone is None else ZoneInfo(find_zone(options.timezone).sql_name)
        return cls(zone, find_locale(options.locale) if options.locale else None)

    def moment(self, time: datetime) -> str:
        """Return a time with its offset, such as ``2026-07-01 12:00:00 +02:00``; in UTC with ``UTC``."""
        local = time.astimezone(self.zone or UTC)
        day = local.date().isoformat() if self.rules is None else self.rules.date_text(local.date())
        offset = (
            "UTC" if self.zone is None else local.isoformat()[len(local.replace(tzinfo=None).isoformat()) :]
        )
        return f"{day} {local:%H:%M:%S} {offset}"

    def number(self, number: int) -> str:
        """Return a number with groups of digits."""
        return f"{number:,}" if self.rules is None else self.rules.number_text(number)
