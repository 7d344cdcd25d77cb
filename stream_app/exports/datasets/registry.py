"""All datasets: the built-in ones, and those of the file that ``EXPORTER_DATASETS_FILE`` names."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stream_app.errors import ExporterError, Rejected
from stream_app.exports.datasets.base import Dataset
from stream_app.exports.datasets.enrollments import ENROLLMENTS
from stream_app.exports.datasets.ledger import LEDGER
from stream_app.exports.datasets.proofs import PROOFS

BUILT_IN: tuple[Dataset, ...] = (ENROLLMENTS, PROOFS, LEDGER)


class DatasetsFileError(ExporterError):
    """The datasets file cannot be used; the text says where and why."""

    code = "bad_datasets_file"


def load_datasets(path: Path | None = None) -> Mapping[str, Dataset]:
    """Datasets by name; an entry of the file replaces a built-in one of the same name.

    Raises:
        DatasetsFileError: the file is missing, no TOML, or an entry is not a dataset.
    """
    datasets = {dataset.name: dataset for dataset in BUILT_IN}
    if path is not None:
        for name, entry in _entries(path).items():
            datasets[name] = _dataset(path, name, entry)
    return datasets


def _entries(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetsFileError(f"EXPORTER_DATASETS_FILE={path}: {error}") from error
    entries = content.get("datasets")
    if not isinstance(entries, dict) or set(content) != {"datasets"}:
        raise DatasetsFileError(f"{path}: expected tables named [datasets.NAME] and nothing else")
    return entries


def _dataset(path: Path, name: str, entry: object) -> Dataset:
    try:
        content = dict(entry) if isinstance(entry, dict) else {}
        if isinstance(content.get("template"), str):
            content["template"] = path.parent / content["template"]
        dataset = Dataset.model_validate({"name": name, **content})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(["datasets", name, *map(str, problem["loc"])])
        fields = ", ".join(sorted(Dataset.model_fields.keys() - {"name"}))
        raise DatasetsFileError(f"{path}: {where}: {problem['msg']}; fields: {fields}") from error
    _check_template(path, dataset)
    return dataset


def _check_template(path: Path, dataset: Dataset) -> None:
    where = f"{path}: datasets.{dataset.name}"
    if dataset.template is None:
        if dataset.template_header is not None:
            raise DatasetsFileError(f"{where}.template_header: there is no template that has rows")
        return
    from stream_app.exports.templates import check_template  # openpyxl is large

    try:
        check_template(dataset.template, dataset.name, dataset.columns, dataset.template_header)
    except Rejected as error:
        raise DatasetsFileError(f"{where}.template = {str(dataset.template)!r}: {error}") from error
