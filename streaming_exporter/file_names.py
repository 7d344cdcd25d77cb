"""Names of downloaded files: no file with other content is replaced unless that is asked for."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

COMPRESSED = frozenset({".gz", ".zst"})


def numbered(target: Path) -> Iterator[Path]:
    """Return ``ledger.csv.gz``, ``ledger (2).csv.gz``, ``ledger (3).csv.gz`` and so on."""
    yield target
    length = 2 if target.suffix in COMPRESSED else 1
    suffix = "".join(target.suffixes[-length:])
    stem = target.name.removesuffix(suffix)
    for number in count(2):
        yield target.with_name(f"{stem} ({number}){suffix}")


def find_same(target: Path, size: int, sha256: str, *, overwrite: bool = False) -> Path | None:
    """Return the file that has the content already, under the name ``target`` or with a number.

    With ``overwrite`` only ``target`` itself counts.
    """
    for path in numbered(target):
        if not path.exists():
            return None
        if _has(path, size, sha256):
            return path
        if overwrite:
            return None
    raise AssertionError("unreachable: there are endless numbers")


def save(part: Path, target: Path, *, overwrite: bool = False) -> Path:
    """Give the complete file ``part`` the name ``target``, in one step; return its path.

    If there is another file of that name, the name gets a number, unless ``overwrite`` is set.
    """
    if overwrite:
        part.replace(target)
        return target
    for path in numbered(target):
        try:
            _name(part, path)
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable: there are endless numbers")


def _name(part: Path, path: Path) -> None:
    """Give the file ``part`` the name ``path``, which no other file has, in one step.

    Raises:
        FileExistsError: another file has the name.
    """
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # the folder has no hard links
        _reserve_and_name(part, path)
    else:
        with suppress(OSError):  # it has its name; the next download removes a part that is left
            part.unlink()


def _reserve_and_name(part: Path, path: Path) -> None:
    """Give the file the name in two steps. A process that ends between them leaves an empty file."""
    path.open("xb").close()  # reserves the name, also against another download at the same time
    try:
        part.replace(path)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _has(path: Path, size: int, sha256: str) -> bool:
    if not path.is_file() or os.stat(path).st_size != size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
