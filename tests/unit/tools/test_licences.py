"""No licence that asks for more comes in unremarked; other tests hold the list up to date."""

from email.message import Message
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest

from tools import licences


def package(folder: Path, **said: str) -> Distribution:
    info = folder / "some.dist-info"
    info.mkdir()
    message = Message()
    for name, value in {"Metadata-Version": "2.4", "Name": "some", "Version": "1", **said}.items():
        message[name.replace("_", "-")] = value
    (info / "METADATA").write_text(message.as_string())
    return PathDistribution(info)


@pytest.mark.parametrize(
    ("said", "licence"),
    [
        ({"License_Expression": "MIT OR Apache-2.0", "License": "see file"}, "MIT OR Apache-2.0"),
        ({"License": "Apache 2.0"}, "Apache-2.0"),
        (
            {"License": "Copyright (c) Somebody", "Classifier": "License :: OSI Approved :: BSD License"},
            "BSD",
        ),
        ({"License_Expression": "AGPL-3.0-only"}, "AGPL-3.0-only"),
        ({"License": "GPL", "Classifier": "License :: OSI Approved :: GPL"}, "GPL"),
    ],
)
def test_what_a_package_says(tmp_path: Path, said: dict[str, str], licence: str) -> None:
    assert licences.licence_of(package(tmp_path, **said)) == licence


def test_a_package_that_says_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="some states no licence"):
        licences.licence_of(package(tmp_path))


def test_a_licence_that_asks_for_more_needs_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "| certifi | MPL-2.0 | changes of its own files" in licences.document()
    monkeypatch.setattr(licences, "REMARKS", {})
    with pytest.raises(ValueError, match=r"certifi is under MPL-2\.0: add a remark to tools"):
        licences.document()


def test_what_is_judged_is_what_is_used() -> None:
    """A remark about a package that is not used any more is a mistake."""
    assert licences.REMARKS.keys() <= set(licences.document().replace("|", "").split())
