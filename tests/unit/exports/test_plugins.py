"""Formats and masks of other packages: good ones are in use, and each kind of bad one is refused."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest
import structlog

from stream_app.doctor.findings import State
from stream_app.doctor.plugins import check_plugins
from stream_app.exports.formats.registry import FORMATS, MISSING, check_format
from stream_app.exports.masks.registry import MASKS, check_mask_class, mask_expression
from stream_app.exports.plugins import (
    FORMATS_GROUP,
    MASKS_GROUP,
    LoadedPlugins,
    load_plugins,
    log_plugins,
)
from stream_app.plugins import (
    INTERFACE,
    RAW_LINES,
    Column,
    CopySelect,
    Document,
    Format,
    Kind,
    Mask,
    Options,
    Rejected,
    Tally,
    text_of,
)


class LinesFormat(Format):
    """A format that other packages could have."""

    interface = INTERFACE
    name = "lines"
    extension = "txt"
    media_type = "text/plain; charset=utf-8"
    description = "lines"

    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        raise NotImplementedError(RAW_LINES)

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        return chunks


def changed(**attributes: object) -> type[Format]:
    return type("ChangedFormat", (LinesFormat,), attributes)


class FailingFormat(LinesFormat):
    def __init__(self) -> None:
        raise OSError("no dictionary")


class UnfinishedFormat(Format):
    interface = INTERFACE
    name = "lines"


class UnnumberedFormat(Format):
    """A format made for no version of the interface."""

    name = "lines"
    copy_select = LinesFormat.copy_select
    frame = LinesFormat.frame


Offer = Callable[..., LoadedPlugins[Format]]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Return a function that loads objects as the plug-ins of a package, by the names of entry points."""

    def load(**offered: object) -> LoadedPlugins[Format]:
        module = ModuleType("a_package")
        vars(module).update(offered)
        monkeypatch.setitem(sys.modules, "a_package", module)
        entries = [EntryPoint(name, f"a_package:{name}", FORMATS_GROUP) for name in offered]
        return load_plugins(FORMATS_GROUP, Format, taken=FORMATS, check=check_format, found=entries)

    return load


@pytest.mark.parametrize("offered", [LinesFormat, LinesFormat()], ids=["class", "object"])
def test_a_format_of_another_package_is_in_use(offer: Offer, offered: object) -> None:
    loaded = offer(lines=offered)
    assert isinstance(loaded.items["lines"], LinesFormat)
    assert loaded.refused == ()


@pytest.mark.parametrize(
    ("offered", "reason"),
    [
        (changed(interface=INTERFACE + 1), rf"made for version {INTERFACE + 1}, .* has version {INTERFACE}"),
        (changed(interface=str(INTERFACE)), "made for version '1'"),
        (changed(interface=True), "made for version True"),
        (UnnumberedFormat, "made for no version of the interface"),
        (FailingFormat, "cannot be loaded: OSError: no dictionary"),
        (UnfinishedFormat, "cannot be loaded: TypeError: .*abstract"),
        (dict, r"must be a subclass of stream_app\.plugins\.Format"),
        (changed(name="other"), "attribute name is 'other', and its entry point is 'lines'"),
        (changed(extension="../x"), "attribute extension is '../x'"),
        (changed(extension=None), "attribute extension is None"),
        (changed(media_type="text/plain\r\nX-A: b"), "attribute media_type"),
        (changed(description=""), "attribute description"),
        (changed(compressible="no"), "attribute compressible is 'no'; allowed: True, False"),
        (
            changed(own_options={"colour"}),
            "attribute own_options is {'colour'}; allowed: None, a set of title,",
        ),
        (changed(own_options="title"), "attribute own_options is 'title'"),
        (changed(growth=-1), "attribute growth is -1"),
        (changed(growth=float("nan")), "attribute growth is nan"),
        (changed(row_bytes=0), "attribute row_bytes is 0"),
        (changed(row_bytes=2**31), "attribute row_bytes is 2147483648; allowed: up to"),
        (changed(max_file_bytes=0), "attribute max_file_bytes is 0"),
    ],
)
def test_a_format_that_cannot_be_used_is_refused_with_its_reason(
    offer: Offer, offered: object, reason: str
) -> None:
    loaded = offer(lines=offered)
    assert loaded.items == {}
    (plugin,) = loaded.refused
    assert plugin.reason is not None
    assert re.search(reason, plugin.reason)


@pytest.mark.parametrize("value", ["no_such_package:F", "a_package:no_such_name", "exits:F"])
def test_a_package_that_cannot_be_imported_does_not_disturb_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    module = ModuleType("a_package")
    vars(module).update(lines=LinesFormat)
    monkeypatch.setitem(sys.modules, "a_package", module)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "exits.py").write_text("raise SystemExit(3)\n")
    found = [
        EntryPoint("broken", value, FORMATS_GROUP),
        EntryPoint("lines", "a_package:lines", FORMATS_GROUP),
    ]
    loaded = load_plugins(FORMATS_GROUP, Format, check=check_format, found=found)
    assert set(loaded.items) == {"lines"}
    assert [plugin.name for plugin in loaded.refused] == ["broken"]


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_name_of_a_format_of_the_service_is_taken(offer: Offer, name: str) -> None:
    loaded = offer(**{name: changed(name=name)})
    assert loaded.items == {}
    assert [plugin.reason for plugin in loaded.refused] == ["the name is taken by the service itself"]


def test_of_two_plugins_with_one_name_every_process_uses_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("a_package")
    vars(module).update(one=LinesFormat, two=LinesFormat)
    monkeypatch.setitem(sys.modules, "a_package", module)
    found = [EntryPoint("lines", f"a_package:{name}", FORMATS_GROUP) for name in ("two", "one")]
    for order in (found, found[::-1]):
        loaded = load_plugins(FORMATS_GROUP, Format, check=check_format, found=order)
        assert [(plugin.name, plugin.reason) for plugin in loaded.plugins] == [
            ("lines", None),
            ("lines", "the name is taken by an unknown package"),
        ]


def test_a_refused_plugin_is_one_line_of_the_log_and_a_problem_of_the_doctor(offer: Offer) -> None:
    plugins = offer(lines=LinesFormat, broken=FailingFormat).plugins
    with structlog.testing.capture_logs() as lines:
        log_plugins(plugins)
    assert [(line["event"], line["log_level"], line["name"]) for line in lines] == [
        ("plugin.refused", "error", "broken"),
        ("plugin.loaded", "info", "lines"),
    ]
    problem, used = check_plugins(plugins)
    assert problem.state is State.PROBLEM
    assert "broken (streaming_exporter.formats)" in problem.what
    assert "no dictionary" in problem.what
    assert used.state is State.OK
    assert "lines (streaming_exporter.formats)" in used.what


class StarsMask(Mask):
    """A mask that other packages could have."""

    interface = INTERFACE
    name = "stars"

    def sql(self, column: Column) -> str:
        return f"regexp_replace({text_of(column)}, '.', '*', 'g')"


def mask_with(sql: Callable[..., object] = StarsMask.sql, **attributes: object) -> type[Mask]:
    return type("ChangedMask", (StarsMask,), {"sql": sql, **attributes})


def failing(_mask: Mask, column: Column) -> str:
    raise KeyError(column.base)


def offered_masks(monkeypatch: pytest.MonkeyPatch, **offered: object) -> LoadedPlugins[Mask]:
    module = ModuleType("a_package")
    vars(module).update(offered)
    monkeypatch.setitem(sys.modules, "a_package", module)
    entries = [EntryPoint(name, f"a_package:{name}", MASKS_GROUP) for name in offered]
    return load_plugins(MASKS_GROUP, Mask, taken=MASKS, check=check_mask_class, found=entries)


def test_a_mask_of_another_package_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = offered_masks(monkeypatch, stars=StarsMask)
    assert isinstance(loaded.items["stars"], StarsMask)
    assert loaded.refused == ()


@pytest.mark.parametrize(
    ("name", "offered", "reason"),
    [
        ("stars", mask_with(interface=0), "made for version 0"),
        ("stars", LinesFormat, r"must be a subclass of stream_app\.plugins\.Mask"),
        ("Stars", mask_with(name="Stars"), "name is 'Stars'"),
        ("stars", mask_with(keeps_type="yes"), "attribute keeps_type is 'yes'"),
        ("stars", mask_with(failing), "sql fails: KeyError: 'text'"),
        ("stars", mask_with(lambda *_: "value) FROM users; --"), "the result of sql is no SQL expression"),
        ("stars", mask_with(lambda *_: ""), "the result of sql is no SQL expression"),
        ("stars", mask_with(lambda *_: None), "sql fails: "),
        *((name, mask_with(name=name), "the name is taken by the service itself") for name in MASKS),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, name: str, offered: object, reason: str
) -> None:
    loaded = offered_masks(monkeypatch, **{name: offered})
    assert loaded.items == {}
    (plugin,) = loaded.refused
    assert plugin.reason is not None
    assert re.search(reason, plugin.reason)


def test_a_mask_that_fails_for_a_column_is_an_error_of_the_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value itself is never shown instead."""
    column = Column("value", "text", "text", Kind.TEXT)
    monkeypatch.setitem(MASKS, "stars", mask_with(failing)())
    with pytest.raises(Rejected, match="cannot be masked with 'stars'") as refused:
        mask_expression("stars", column)
    assert refused.value.code == "missing_mask"
    monkeypatch.delitem(MASKS, "stars")
    with pytest.raises(Rejected, match="the mask 'stars', which is not available"):
        mask_expression("stars", column)


def test_without_plugins_nothing_is_missing() -> None:
    assert not MISSING
