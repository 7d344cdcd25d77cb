"""A licence with further conditions needs a remark. Other tests keep the list up to date."""

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
def test_the_licence_of_a_package(tmp_path: Path, said: dict[str, str], licence: str) -> None:
    assert licences.licence_of(package(tmp_path, **said)) == licence


def test_a_package_without_a_licence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="some states no licence"):
        licences.licence_of(package(tmp_path))


def test_a_licence_with_further_conditions_needs_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "| certifi | MPL-2.0 | changes of its own files" in licences.document()
    remarks = {name: text for name, text in licences.REMARKS.items() if name != "certifi"}
    monkeypatch.setattr(licences, "REMARKS", remarks)
    with pytest.raises(ValueError, match=r"certifi is under MPL-2\.0: add a remark to tools"):
        licences.document()


def test_remarks_are_about_used_packages() -> None:
    """A remark about a package that is no longer used is a mistake."""
    assert licences.REMARKS.keys() <= set(licences.document().replace("|", "").split())
