"""Paths of files at a destination: patterns such as ``{dataset}/date={date}/{file_name}``. Pure.

The same file of the same job always has the same path, so a delivery can be repeated. Values cannot leave
their place: characters with a meaning in paths are written as ``%2F``, and no two values become the same.
"""

import hashlib
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from zoneinfo import ZoneInfo

MAX_PATTERN = 500
"""Characters of a pattern."""
MAX_VALUE = 120
"""Bytes of one value in a path. A longer one is cut, and a hash of it makes it unique."""
MAX_FILE_NAME = 240
"""Bytes of the name of a file, or of a folder: a temporary name needs the rest of the usual 255."""
MAX_PATH = 1_000
"""Bytes of a path. S3 allows 1,024."""

FIELDS: Mapping[str, str] = {
    "dataset": "the dataset",
    "name": "the name of the export, or else the dataset",
    "date": "the day of the run or of the request, such as 2026-11-26",
    "year": "its year",
    "month": "its month, 01 to 12",
    "day": "its day, 01 to 31",
    "time": "its time, such as 063000; the second one of a time that exists twice ends with b",
    "window_date": "the day on which the window of a schedule's run begins, or else the date",
    "job_id": "the id of the job",
    "schedule": "the name of the schedule, or else its id; `none` without a schedule",
    "user": "the id of the user",
    "file_name": "the name of the file",
    "number": "the number of the file, from 1",
    "extension": "the end of the file's name, such as csv.gz",
    "format": "the format, such as csv",
}
"""The fields of patterns, with what each has."""

EACH_FILE = frozenset({"file_name", "number"})
"""Fields that differ between the files of a job. A pattern has one of them."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029/\\%<>:"|?*]|^\.|[. ]$')
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What paths can have of a job. ``moment`` is the time of the run or of the request.

    Attributes:
        zone: the time zone of dates, by its name.
        window_from: where the window begins; ``None`` without a window.
        is_gap: whether a run exports a window that was lost, in addition to the regular run of that moment.
    """

    job_id: str
    dataset: str
    name: str | None
    user: str
    format: str
    schedule: str | None
    moment: datetime
    zone: str
    window_from: datetime | None = None
    is_gap: bool = False


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A pattern: texts and names of fields, in turn."""

    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the pattern of ``text``.

        Raises:
            ValueError: it is no pattern of a path. The text says what is allowed.
        """
        if not text or len(text) > MAX_PATTERN:
            raise ValueError(f"it must have 1 to {MAX_PATTERN} characters")
        try:
            found = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"a brace is missing ({error}); write fields as {{date}}") from error
        for _, field, spec, conversion in found:
            if field is not None and (field not in FIELDS or spec or conversion):
                written = field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
                raise ValueError(f"there is no field {{{written}}}; allowed: {', '.join(FIELDS)}")
        literal = "".join(part if field is None else f"{part}x" for part, field, _, _ in found)
        check_folder(literal)
        return cls(tuple((part, field) for part, field, _, _ in found))

    @property
    def fields(self) -> frozenset[str]:
        """The names of the fields."""
        return frozenset(field for _, field in self.parts if field is not None)

    @property
    def tells_numbers(self) -> bool:
        """Whether the number of a file cannot be taken for the end of another value, or the reverse."""
        before = [text for text, field in self.parts[1:] if field == "number"]
        return all(text and not text[-1].isdigit() for text in before)

    def path(self, facts: JobFacts, *, file_name: str, number: int | str) -> str:
        """Return the path of a file of a job, with slashes between the folders.

        Raises:
            ValueError: it is too long.
        """
        values = _values(facts, file_name, number)
        path = "".join(part + ("" if field is None else values[field]) for part, field in self.parts)
        longest = max(len(part.encode()) for part in path.split("/"))
        if len(path.encode()) > MAX_PATH or longest > MAX_FILE_NAME:
            raise ValueError(
                f"the path has more than {MAX_PATH} bytes, or a part of it has more than {MAX_FILE_NAME}"
            )
        return path


def check_folder(text: str) -> None:
    """Check the fixed text of a path.

    Raises:
        ValueError: it begins with a slash, or has an empty part, ``.``, ``..``, a backslash or a control
            character.
    """
    if _CONTROL.search(text) or "\\" in text:
        raise ValueError("it has a backslash or a control character; use / between folders")
    if any(part in ("", ".", "..") for part in text.split("/")):
        raise ValueError(
            "it has an empty part, . or ..; write it as folder/folder/name, without / at its ends"
        )


def clean(value: str, longest: int = MAX_VALUE) -> str:
    """Return a value as part of a path: without slashes, control characters and a dot at its start."""
    safe = _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), _storable(value))
    if not safe:
        return "_"
    if len(safe.encode()) <= longest:
        return safe
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:16]
    return safe.encode()[: longest - 17].decode(errors="ignore").rstrip(". ") + "~" + digest


def _storable(value: str) -> str:
    return value.encode(errors="replace").decode()


def _values(facts: JobFacts, file_name: str, number: int | str) -> Mapping[str, str]:
    moment = facts.moment.astimezone(ZoneInfo(facts.zone))
    window = (facts.window_from or facts.moment).astimezone(ZoneInfo(facts.zone))
    _, dot, extension = file_name.partition(".")
    return {
        "dataset": clean(facts.dataset),
        "name": clean(facts.name or facts.dataset),
        "date": f"{moment:%Y-%m-%d}",
        "year": f"{moment:%Y}",
        "month": f"{moment:%m}",
        "day": f"{moment:%d}",
        "time": _clock(moment) + (f"-{window:%Y%m%d}T{_clock(window)}" if facts.is_gap else ""),
        "window_date": f"{window:%Y-%m-%d}",
        "job_id": clean(facts.job_id),
        "schedule": clean(facts.schedule or "none"),
        "user": clean(facts.user),
        "file_name": clean(file_name, MAX_FILE_NAME),
        "number": str(number),
        "extension": clean(extension) if dot else clean(facts.format),
        "format": clean(facts.format),
    }


def _clock(local: datetime) -> str:
    """Return the time of the day. Where clocks go back, a time comes twice: the second one ends with b."""
    return f"{local:%H%M%S}" + ("b" if local.fold else "")
