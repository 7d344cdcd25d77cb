"""Reads the datasets file, or a folder of such files."""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from stream_app.datasets.bundles import SUBJECT_ACCESS, Bundle, BundleSettings, common_formats
from stream_app.datasets.destinations import FILES, KINDS, Destination
from stream_app.datasets.faults import DatasetsFileError as DatasetsFileError
from stream_app.datasets.faults import Fault, Place, faults_of, nearest
from stream_app.datasets.models import DEFAULT_SOURCE, Dataset, Entry, SourceSettings
from stream_app.datasets.positions import find_lines, line_of
from stream_app.datasets.rights import has_own_rows
from streaming_exporter.errors import Rejected
from streaming_exporter.exact_numbers import exact_number

TABLES = ("sources", "datasets", "bundles", "destinations")
"""The tables that the file can have."""

ONLY = "only"
"""The key for the exported columns where ``columns`` has the tables of single columns."""

Model = TypeVar("Model", bound=Entry)


@dataclass(frozen=True)
class TomlFile:
    """One file with datasets or sources."""

    path: Path
    text: str

    @cached_property
    def lines(self) -> Mapping[Place, int]:
        """The lines of its keys. They are found only when there is a fault."""
        return find_lines(self.text)

    def fault(self, place: Place, text: str) -> Fault:
        """Return a fault at ``place``."""
        return Fault(self.path, line_of(self.lines, place), place, text)


@dataclass(frozen=True, slots=True)
class DatasetsFile:
    """The content of the datasets file, by name: further sources, datasets, bundles, destinations.

    Attributes:
        files: the files of the entries, by the name of the table and of the entry.
    """

    sources: Mapping[str, SourceSettings] = field(default_factory=dict)
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    files: Mapping[tuple[str, str], TomlFile] = field(default_factory=dict, compare=False)
    bundles: Mapping[str, Bundle] = field(default_factory=dict)
    destinations: Mapping[str, Destination] = field(default_factory=dict)

    @property
    def requestable(self) -> Mapping[str, Dataset]:
        """What a request can name: the datasets, and the bundles."""
        return {**self.datasets, **self.bundles}

    def fault(self, place: Place, text: str) -> Fault:
        """Return a fault at a place of an entry, such as ``("datasets", "orders", "time")``."""
        file = self.files.get((str(place[0]), str(place[1])))
        return Fault(None, None, place, text) if file is None else file.fault(place, text)


def load_datasets(path: Path | None = None) -> DatasetsFile:
    """Return the content of a datasets file, or of all files ``*.toml`` of a folder.

    Without a path there are no datasets.

    Raises:
        DatasetsFileError: a file is missing or not TOML, or entries are wrong or repeated. It has all faults.
    """
    content, faults = read_datasets(path)
    if faults:
        raise DatasetsFileError(faults)
    return content


def read_datasets(path: Path | None) -> tuple[DatasetsFile, list[Fault]]:
    """Return what is right in the datasets file, and all faults. An entry with a fault can lack keys.

    Raises:
        DatasetsFileError: there is no file, or the folder cannot be read.
    """
    faults: list[Fault] = []
    files: dict[tuple[str, str], TomlFile] = {}
    entries: dict[tuple[str, str], Any] = {}
    for found in datasets_files(path):
        try:
            file = TomlFile(found, found.read_text(encoding="utf-8"))
            content = tomllib.loads(file.text, parse_float=exact_number)
        except (OSError, ValueError, RecursionError) as error:  # the last one: nested too deeply
            faults.append(Fault(found, _line_in(error), (), f"EXPORTER_DATASETS_FILE: {error}"))
            continue
        for table, name, entry, fault in _entries(file, content):
            if fault is not None:
                faults.append(fault)
            elif (table, name) in files:
                other = files[table, name].path
                faults.append(file.fault((table, name), f"{other} has it too; remove one of them"))
            else:
                files[table, name], entries[table, name] = file, entry
    sources = _sources(files, entries, faults)
    declared = {DEFAULT_SOURCE, *(name for table, name in files if table == "sources")}
    datasets: dict[str, Dataset] = {}
    for (table, name), entry in entries.items():
        if table == "datasets":
            file = files[table, name]
            dataset = _dataset(file, name, entry, faults)
            if dataset is None:
                continue
            datasets[name] = dataset
            if dataset.source not in declared:
                text = f"there is no source {dataset.source!r}{nearest(dataset.source, declared)}"
                faults.append(
                    file.fault((table, name, "source"), f"{text}; allowed: {', '.join(sorted(declared))}")
                )
    bundles = _bundles(files, entries, datasets, faults)
    destinations = _destinations(files, entries, faults)
    whole = DatasetsFile(sources, datasets, files, bundles, destinations)
    return whole, sorted(faults, key=_order)


def datasets_files(path: Path | None) -> Iterator[Path]:
    """Yield the files: ``path`` itself, or those of the folder.

    Raises:
        DatasetsFileError: the folder has no file, or cannot be read.
    """
    if path is None:
        return
    try:
        if not path.is_dir():
            yield path
            return
        files = sorted(item for item in path.iterdir() if _is_read(item.name))
    except OSError as error:
        raise DatasetsFileError(f"EXPORTER_DATASETS_FILE={path}: {error}") from error
    if not files:
        raise DatasetsFileError(f"EXPORTER_DATASETS_FILE={path}: the folder has no file *.toml")
    yield from files


def _is_read(name: str) -> bool:
    return name.endswith(".toml") and not name.startswith(".")


def _order(fault: Fault) -> tuple[str, int]:
    return str(fault.file), fault.line or 0


def _line_in(error: Exception) -> int | None:
    """Return the line that the parser names. Python 3.14 has it as an attribute."""
    line = getattr(error, "lineno", None)
    named = re.search(r"\(at line (\d+)", str(error))
    return line if isinstance(line, int) else int(named[1]) if named else None


def _entries(file: TomlFile, content: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Fault | None]]:
    """Yield the table, the name and the content of each entry, or a fault in its place."""
    for table, entries in content.items():
        if table not in TABLES:
            names = ", ".join(f"[{known}.NAME]" for known in TABLES)
            text = f"only tables named {names} are allowed{nearest(table, TABLES)}"
            yield table, "", None, file.fault((table,), text)
        elif not isinstance(entries, dict):
            yield table, "", None, file.fault((table,), f"it is not a table; write [{table}.NAME]")
        else:
            for name, entry in entries.items():
                is_table = isinstance(entry, dict)
                text = f"it is not a table; write [{table}.{name}]"
                yield table, name, entry, None if is_table else file.fault((table, name), text)


def _sources(
    files: Mapping[tuple[str, str], TomlFile],
    entries: Mapping[tuple[str, str], Any],
    faults: list[Fault],
) -> dict[str, SourceSettings]:
    sources = {}
    for (table, name), entry in entries.items():
        file = files[table, name]
        if table != "sources":
            continue
        if name == DEFAULT_SOURCE:
            text = "EXPORTER_SOURCE_DATABASE_URL sets the default source; use another name"
            faults.append(file.fault((table, name), text))
        elif (source := _entry(file, SourceSettings, (table, name), entry, faults)) is not None:
            sources[name] = source
    return sources


def _destinations(
    files: Mapping[tuple[str, str], TomlFile],
    entries: Mapping[tuple[str, str], Any],
    faults: list[Fault],
) -> dict[str, Destination]:
    exported = {name for table, name in files if table in ("datasets", "bundles")}
    destinations = {}
    for (table, name), entry in entries.items():
        if table != "destinations":
            continue
        file, place = files[table, name], (table, name)
        kind = entry.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            text = "the key is missing" if kind is None else f"there is no kind {str(kind)[:100]!r}"
            faults.append(file.fault((*place, "kind"), f"{text}; allowed: {', '.join(KINDS)}"))
            continue
        content = dict(entry)
        for key in FILES:
            if isinstance(content.get(key), str):
                content[key] = file.path.parent / content[key]
        destination = _entry(file, KINDS[kind], place, content, faults)
        if destination is None:
            continue
        destinations[name] = destination
        for position, dataset in enumerate(destination.datasets or ()):
            if dataset not in exported:
                text = f"there is no dataset or bundle {dataset!r}{nearest(dataset, exported)}"
                faults.append(file.fault((*place, "datasets", position), text))
    return destinations


def _dataset(file: TomlFile, name: str, entry: Mapping[str, Any], faults: list[Fault]) -> Dataset | None:
    content = dict(entry)
    if isinstance(content.get("template"), str):
        content["template"] = file.path.parent / content["template"]
    columns = content.get("columns")
    if isinstance(columns, dict):
        content["column_settings"] = columns
        content["columns"] = content.pop(ONLY, None)
    dataset = _entry(file, Dataset, ("datasets", name), content, faults)
    if dataset is not None:
        faults.extend(_template_faults(file, dataset))
    return dataset


def _bundles(
    files: Mapping[tuple[str, str], TomlFile],
    entries: Mapping[tuple[str, str], Any],
    datasets: Mapping[str, Dataset],
    faults: list[Fault],
) -> dict[str, Bundle]:
    bundles = {}
    declared = {name for table, name in files if table == "datasets"}
    for (table, name), entry in entries.items():
        if table != "bundles":
            continue
        file = files[table, name]
        settings = _entry(file, BundleSettings, (table, name), entry, faults)
        if settings is None:
            continue
        if name in declared:
            text = (
                "a dataset has this name too; requests would not know which one they mean; rename one of them"
            )
            faults.append(file.fault((table, name), text))
            continue
        bundle = _bundle(file, settings, declared, datasets, faults)
        if bundle is not None:
            bundles[name] = bundle
    return bundles


def _bundle(
    file: TomlFile,
    settings: BundleSettings,
    declared: Collection[str],
    datasets: Mapping[str, Dataset],
    faults: list[Fault],
) -> Bundle | None:
    """Return the bundle, or ``None`` if it has a fault, or one of its datasets has."""
    place = ("bundles", settings.name)
    wanted = settings.datasets
    if wanted is None:
        wanted = tuple(name for name, dataset in datasets.items() if has_own_rows(dataset))
    found: list[Fault] = []
    for number, name in enumerate(wanted):
        if name not in declared:
            text = f"there is no dataset {name!r}{nearest(name, declared)}"
            found.append(file.fault((*place, "datasets", number), text))
    found += [
        file.fault((*place, "filters", name), f"the bundle has no such dataset{nearest(name, wanted)}")
        for name in sorted(settings.filters.keys() - set(wanted))
    ]
    members = [datasets[name] for name in wanted if name in datasets]
    if settings.kind == SUBJECT_ACCESS:
        found += [
            file.fault((*place, "datasets"), _no_owner(member))
            for member in members
            if not has_own_rows(member)
        ]
    faults.extend(found)
    if found or len(members) < len(wanted):
        return None
    if not members:
        faults.append(file.fault(place, "no dataset has an owner; name the datasets, or set owner in one"))
        return None
    if common_formats(members) == ():
        faults.append(file.fault((*place, "datasets"), "there is no format that each of its datasets allows"))
        return None
    return Bundle.of(settings, members)


def _no_owner(dataset: Dataset) -> str:
    return (
        f"dataset {dataset.name!r} has no owner, so it has no rows about one person; set owner, or leave it "
        "out"
    )


def _entry(
    file: TomlFile, model: type[Model], place: Place, entry: Mapping[str, Any], faults: list[Fault]
) -> Model | None:
    try:
        return model.model_validate({"name": place[-1], **entry})
    except ValidationError as error:
        has_tables = "column_settings" in entry
        renamed = {"column_settings": "columns", **({"columns": ONLY} if has_tables else {})}
        for inner, text in faults_of(error, model, renamed):
            if inner == ("name",):
                inner = ()
            faults.append(file.fault((*place, *inner), text))
        return _rest_of(model, place, entry, error)


def _rest_of(
    model: type[Model], place: Place, entry: Mapping[str, Any], error: ValidationError
) -> Model | None:
    """Return what is right in an entry with faults, so that the rest can be compared with the database."""
    wrong = {problem["loc"][0] for problem in error.errors(include_url=False) if problem["loc"]}
    rest = {name: value for name, value in entry.items() if name not in wrong}
    if not wrong or len(rest) == len(entry):
        return None
    try:
        return model.model_validate({"name": place[-1], **rest})
    except ValidationError:
        return None


def _template_faults(file: TomlFile, dataset: Dataset) -> Iterator[Fault]:
    place = ("datasets", dataset.name)
    if dataset.template is None:
        if dataset.template_header is not None:
            text = "it needs a template; set template, or remove template_header"
            yield file.fault((*place, "template_header"), text)
        return
    from stream_app.datasets.excel_template import check_template  # openpyxl is large

    try:
        check_template(dataset.template, dataset.name, dataset.columns, dataset.template_header)
    except Rejected as error:
        yield file.fault((*place, "template"), f"{str(dataset.template)!r}: {error}")
