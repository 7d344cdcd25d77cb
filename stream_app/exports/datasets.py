"""Datasets: the tables that can be exported, from the datasets file. The database has their columns."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from streaming_exporter.errors import ExporterError, Rejected

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=63)]


class Dataset(BaseModel):
    """A table or view that can be exported.

    Attributes:
        table: ``name`` or ``schema.name``.
        owner: the column that scope ``own`` compares with the user's id.
        time: the column for windows.
        columns: the columns that are exported, in this order (default: all).
        order: the columns that the rows are ordered by. By default there is no order: the rows come as
            PostgreSQL reads them, and it never sorts a table.
        template: an Excel workbook that the format ``excel`` fills.
        template_header: the row of its captions, if it cannot be found by itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
    table: Annotated[str, StringConstraints(min_length=1, max_length=127)]
    description: str = ""
    owner: Identifier | None = None
    time: Identifier | None = None
    columns: tuple[Identifier, ...] | None = Field(None, min_length=1)
    order: tuple[Identifier, ...] | None = None
    template: Path | None = None
    template_header: Annotated[int, Field(ge=1, le=1_048_575)] | None = None


ENROLLMENTS = Dataset(
    name="enrollments",
    table="public.enrollments",
    description="Devices enrolled by users, with their keys and status",
    owner="user_id",
    time="created_at",
)


LEDGER = Dataset(
    name="ledger",
    table="public.ledger",
    description="Entries of the hash-chained ledger",
    owner="user_id",
    time="created_at",
)


PROOFS = Dataset(
    name="proofs",
    table="public.proofs",
    description="Proofs of captured assets: hashes, signatures, times, metadata",
    owner="user_id",
    time="created_at",
)


BUILT_IN: tuple[Dataset, ...] = (ENROLLMENTS, PROOFS, LEDGER)


class DatasetsFileError(ExporterError):
    """The datasets file cannot be used. The text names the place and the reason."""

    code = "bad_datasets_file"


def load_datasets(path: Path | None = None) -> Mapping[str, Dataset]:
    """Return the datasets by name. An entry of the file replaces a built-in dataset with the same name.

    Raises:
        DatasetsFileError: the file is missing or not TOML, or an entry is wrong.
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
        raise DatasetsFileError(f"{path}: only tables named [datasets.NAME] are allowed")
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
        raise DatasetsFileError(f"{path}: {where}: {problem['msg']}; allowed fields: {fields}") from error
    _check_template(path, dataset)
    return dataset


def _check_template(path: Path, dataset: Dataset) -> None:
    where = f"{path}: datasets.{dataset.name}"
    if dataset.template is None:
        if dataset.template_header is not None:
            raise DatasetsFileError(
                f"{where}.template_header: it needs a template; set template, or remove template_header"
            )
        return
    from stream_app.exports.excel_template import check_template  # openpyxl is large

    try:
        check_template(dataset.template, dataset.name, dataset.columns, dataset.template_header)
    except Rejected as error:
        raise DatasetsFileError(f"{where}.template = {str(dataset.template)!r}: {error}") from error
