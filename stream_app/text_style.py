"""How the words around rows write times and numbers: in reports and in mails."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Self
from zoneinfo import ZoneInfo

from stream_app.locales import LocaleRules, find_locale
from stream_app.time_zones import find_zone
from streaming_exporter.errors import Rejected

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class TextStyle:
    """A time zone and a locale; ``None`` for UTC and for English with ISO dates."""

    zone: ZoneInfo | None = None
    rules: LocaleRules | None = None

    @classmethod
    def of(cls, timezone: str | None, locale: str | None) -> Self:
        """Return the style with the names of a time zone and of a locale.

        Raises:
            Rejected: there is no such time zone or locale.
        """
        zone = None if timezone is None else ZoneInfo(find_zone(timezone).sql_name)
        return cls(zone, None if locale is None else find_locale(locale))

    @classmethod
    def of_stored(cls, options: object, timezone: object = None) -> Self:
        """Return the style of a stored job, whose options can be invalid. What is unknown is left out.

        Args:
            options: the options of the request. Without a locale the language counts.
            timezone: the time zone of the file; by default that of the options.
        """
        known = options if isinstance(options, Mapping) else {}
        zone, rules = None, None
        name = timezone or known.get("timezone")
        if isinstance(name, str):
            with suppress(Rejected):
                zone = ZoneInfo(find_zone(name).sql_name)
        for tag in (known.get("locale"), known.get("language")):
            if isinstance(tag, str) and rules is None:
                with suppress(Rejected):
                    rules = find_locale(tag)
        return cls(zone, rules)

    def moment(self, time: datetime, *, seconds: bool = True) -> str:
        """Return a time with its offset, such as ``2026-07-01 12:00:00 +02:00``; in UTC with ``UTC``."""
        local = time.astimezone(self.zone or UTC)
        day = local.date().isoformat() if self.rules is None else self.rules.date_text(local.date())
        offset = "UTC" if self.zone is None else f"{local:%z}"[:3] + ":" + f"{local:%z}"[3:5]
        return f"{day} {local:{'%H:%M:%S' if seconds else '%H:%M'}} {offset}"

    def number(self, number: int) -> str:
        """Return a number with groups of digits."""
        return f"{number:,}" if self.rules is None else self.rules.number_text(number)

    def size(self, size: int) -> str:
        """Return a number of bytes with a decimal unit, such as ``1.5 MB``."""
        value = float(size)
        unit = _UNITS[0]
        for unit in _UNITS:
            if value < 1000 or unit == _UNITS[-1]:
                break
            value /= 1000
        has_fraction = unit == _UNITS[-1] or (unit != _UNITS[0] and value < 10)
        text = f"{value:,.1f}" if has_fraction else f"{value:.0f}"
        if self.rules is not None:
            text = self.rules.number_text(Decimal(text.replace(",", "")))
        return f"{text} {unit}"
