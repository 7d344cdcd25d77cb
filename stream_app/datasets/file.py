"""Reads the datasets file, or a folder of such files."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from stream_app.datasets.models import DEFAULT_SOURCE, Dataset, Entry, SourceSettings
from streaming_exporter.errors import ExporterError, Rejected

TABLES = ("sources", "datasets")
"""The tables that the file can have."""

ONLY = "only"
"""The key for the exported columns where ``columns`` has the tables of single columns."""

Model = TypeVar("Model", bound=Entry)


class DatasetsFileError(ExporterError):
    """The datasets file cannot be used. The text names the place and the reason."""

    code = "bad_datasets_file"


@dataclass(frozen=True, slots=True)
class DatasetsFile:
    """The content of the datasets file: sources besides the default one, and datasets, by name."""

    sources: Mapping[str, SourceSettings] = field(default_factory=dict)
    datasets: Mapping[str, Dataset] = field(default_factory=dict)


def load_datasets(path: Path | None = None) -> DatasetsFile:
    """Return the content of a datasets file, or of all files ``*.toml`` of a folder.

    Without a path there are no datasets.

    Raises:
        DatasetsFileError: a file is missing or not TOML, or an entry is wrong or repeated.
    """
    found: dict[str, tuple[Path, Any]] = {}
    sources: dict[str, SourceSettings] = {}
    for file in _files(path):
        content = _content(file)
        for name, entry in content.get("sources", {}).items():
            if name == DEFAULT_SOURCE:
                raise DatasetsFileError(
                    f"{file}: sources.{name}: EXPORTER_SOURCE_DATABASE_URL sets the default source; "
                    "use another name"
                )
            if name in sources:
                raise DatasetsFileError(f"{file}: sources.{name} is in another file of the folder too")
            sources[name] = _entry(file, SourceSettings, "sources", name, entry)
        for name, entry in content.get("datasets", {}).items():
            if name in found:
                raise DatasetsFileError(f"{file}: datasets.{name} is also in {found[name][0]}")
            found[name] = file, entry
    datasets: dict[str, Dataset] = {}
    for name, (file, entry) in found.items():
        datasets[name] = dataset = _dataset(file, name, entry)
        if dataset.source not in (DEFAULT_SOURCE, *sources):
            allowed = ", ".join((DEFAULT_SOURCE, *sorted(sources)))
            raise DatasetsFileError(
                f"{file}: datasets.{name}.source: there is no source {dataset.source!r}; allowed: {allowed}"
            )
    return DatasetsFile(sources, datasets)


def _files(path: Path | None) -> Iterator[Path]:
    if path is None:
        return
    if not path.is_dir():
        yield path
        return
    files = sorted(item for item in path.glob("*.toml") if not item.name.startswith("."))
    if not files:
        raise DatasetsFileError(f"EXPORTER_DATASETS_FILE={path}: the folder has no file *.toml")
    yield from files


def _content(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetsFileError(f"EXPORTER_DATASETS_FILE={path}: {error}") from error
    if not content.keys() <= set(TABLES) or not all(isinstance(item, dict) for item in content.values()):
        raise DatasetsFileError(f"{path}: only tables named [datasets.NAME] and [sources.NAME] are allowed")
    return content


def _dataset(path: Path, name: str, entry: object) -> Dataset:
    content = dict(entry) if isinstance(entry, dict) else {}
    if isinstance(content.get("template"), str):
        content["template"] = path.parent / content["template"]
    columns = content.get("columns")
    if isinstance(columns, dict):
        content["column_settings"] = columns
        content["columns"] = content.pop(ONLY, None)
    dataset = _entry(path, Dataset, "datasets", name, content)
    _check_template(path, dataset)
    return dataset


def _entry(path: Path, model: type[Model], table: str, name: str, entry: object) -> Model:
    content = entry if isinstance(entry, dict) else {}
    try:
        return model.model_validate({"name": name, **content})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        location = ["columns" if part == "column_settings" else str(part) for part in problem["loc"]]
        where = ".".join([table, name, *location])
        fields = ", ".join(sorted(model.model_fields.keys() - {"name", "column_settings"}))
        raise DatasetsFileError(f"{path}: {where}: {problem['msg']}; allowed fields: {fields}") from error


def _check_template(path: Path, dataset: Dataset) -> None:
    where = f"{path}: datasets.{dataset.name}"
    if dataset.template is None:
        if dataset.template_header is not None:
            raise DatasetsFileError(
                f"{where}.template_header: it needs a template; set template, or remove template_header"
            )
        return
    from stream_app.datasets.excel_template import check_template  # openpyxl is large

    try:
        check_template(dataset.template, dataset.name, dataset.columns, dataset.template_header)
    except Rejected as error:
        raise DatasetsFileError(f"{where}.template = {str(dataset.template)!r}: {error}") from error
