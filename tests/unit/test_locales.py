"""Rules of locales."""

from datetime import date, datetime
from decimal import Decimal

import pytest
from babel.localedata import locale_identifiers

from stream_app.locales import find_locale
from streaming_exporter.errors import Rejected


@pytest.mark.parametrize(
    ("tag", "delimiter", "day", "number", "excel"),
    [
        ("de-DE", ";", "05.03.2026", "-1.234.567,05", r"dd\.mm\.yyyy"),
        ("en-GB", ",", "05/03/2026", "-1,234,567.05", r"dd\/mm\/yyyy"),
        ("en-US", ",", "3/5/2026", "-1,234,567.05", r"m\/d\/yyyy"),
        ("pt_BR", ";", "05/03/2026", "-1.234.567,05", r"dd\/mm\/yyyy"),
        ("hi-IN", ",", "5/3/2026", "-12,34,567.05", r"d\/m\/yyyy"),
        ("zh-TW", ",", "2026/3/5", "-1,234,567.05", r"yyyy\/m\/d"),
        ("sv-SE", ";", "2026-03-05", "-1\xa0234\xa0567,05", r"yyyy\-mm\-dd"),
    ],
)
def test_rules(tag: str, delimiter: str, day: str, number: str, excel: str) -> None:
    rules = find_locale(tag)
    assert rules.delimiter == delimiter
    assert rules.date_text(date(2026, 3, 5)) == day
    assert rules.number_text(Decimal("-1234567.05")) == number
    assert rules.excel_date == excel


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 20])
def test_every_locale_has_a_date_that_can_be_read_back(step: int) -> None:
    names = sorted(set(locale_identifiers()) - {"root"})[::step]
    assert len(names) > 30
    for name in names:
        rules = find_locale(name)
        order = [part[0] for part in rules.date_parts if part in ("d", "dd", "M", "MM", "yyyy")]
        assert sorted(order) == ["M", "d", "y"], name
        assert rules.decimal != rules.group
        assert '"' not in rules.decimal + rules.group
        assert "\\" not in rules.decimal + rules.group


def test_four_digits_of_the_year() -> None:
    assert find_locale("de-DE").date_text(datetime(44, 3, 15)) == "15.03.0044"


@pytest.mark.parametrize("tag", ["root", "xx", "de-XX", "deutsch", "", "de-"])
def test_unknown_locales(tag: str) -> None:
    with pytest.raises(Rejected, match="there is no locale") as error:
        find_locale(tag)
    assert (error.value.code, error.value.field) == ("unknown_locale", "options.locale")
