"""Files and manifests of every format have what their caller sees, and nothing else."""

import json
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import asyncpg
import pytest
from openpyxl import Workbook, load_workbook
from pypdf import PdfReader
from structlog.testing import capture_logs

from stream_app.datasets.models import ColumnSettings, Dataset, Scope
from stream_app.exports.formats.registry import FORMATS
from streaming_exporter.errors import Rejected
from tests.integration.exports.conftest import Export
from tests.integration.exports.test_conformance import READINGS, Table

ROLES = {
    "nobody": ([], ["id", "email"], "***@example.com"),
    "finance": (["finance"], ["id", "hidden_margin", "email"], "***@example.com"),
    "pii": (["pii"], ["id", "email"], "name1@example.com"),
    "admin": (["exports:admin"], ["id", "hidden_margin", "email"], "name1@example.com"),
}


def read_pdf(content: bytes) -> Table:
    """Return the words of the first page: those of the header, and of the rows."""
    lines = "".join(page.extract_text() for page in PdfReader(BytesIO(content)).pages).splitlines()
    return lines, []


@pytest.fixture
async def people(database: asyncpg.Connection, schema: str) -> Dataset:
    await database.execute(
        "CREATE TABLE people (id int PRIMARY KEY, owner text, org text, hidden_margin int, email text);"
        "INSERT INTO people SELECT n, 'user' || n % 3, 'org' || n % 2, 770000 + n,"
        " 'name' || n || '@example.com' FROM generate_series(1, 12) n"
    )
    return Dataset(
        name="people",
        table=f"{schema}.people",
        owner="owner",
        columns=("id", "hidden_margin", "email"),
        order=("id", "hidden_margin"),
        column_settings={
            "hidden_margin": ColumnSettings(roles=("finance",)),
            "email": ColumnSettings(mask="email", unmasked_for=("pii",)),
        },
        scopes={"organisation": Scope(column="org", claim="org")},
    )


def unpacked(content: bytes) -> bytes:
    """Return the content of a file, also of its parts if it is a ZIP archive."""
    if not content.startswith(b"PK"):
        return content
    with ZipFile(BytesIO(content)) as archive:
        return b"".join(map(archive.read, archive.namelist()))


@pytest.mark.parametrize("who", ROLES)
@pytest.mark.parametrize("name", FORMATS)
async def test_files_have_the_columns_of_their_caller(
    export: Export, people: Dataset, name: str, who: str
) -> None:
    roles, columns, email = ROLES[who]
    file = await export(
        "", name, dataset=people, scope="organisation", claims={"org": "org1", "roles": roles}
    )
    read: Callable[[bytes], Table] = READINGS[name].read if name in READINGS else read_pdf
    header, rows = read(file.content)
    if name == "pdf":
        text = " ".join(header)
        assert ("hidden_margin" in text, "770001" in text) == ("hidden_margin" in columns,) * 2
        assert email in text
        assert ("name1@" in text) == (email == "name1@example.com")
    else:
        assert header == columns
        assert len(rows) == 6, "the rows of the claim's organisation"
        assert str(rows[0][-1]).endswith(email)
    manifest = json.dumps(file.data.manifest)
    if "hidden_margin" not in columns:
        assert b"hidden_margin" not in unpacked(file.content)
        assert b"770001" not in unpacked(file.content)
        assert "hidden_margin" not in manifest
    if email.startswith("***"):
        assert b"name1@" not in unpacked(file.content)
    assert "org1" not in manifest
    assert "finance" not in manifest


async def test_a_template_shows_no_caption_of_a_hidden_column(
    export: Export, people: Dataset, tmp_path: Path
) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["id", "hidden_margin", "email"])
    book.save(tmp_path / "people.xlsx")
    dataset = people.model_copy(update={"template": tmp_path / "people.xlsx"})
    for roles, columns, _ in ROLES.values():
        file = await export("", "excel", dataset=dataset, claims={"roles": roles}, scope="all")
        found = load_workbook(BytesIO(file.content)).worksheets[0]
        assert [cell.value for cell in found[1] if cell.value is not None] == columns
        if "hidden_margin" not in columns:
            assert b"hidden_margin" not in unpacked(file.content)


async def test_the_error_of_a_template_names_no_hidden_column(
    export: Export, people: Dataset, tmp_path: Path
) -> None:
    """The table can get columns after the template was made."""
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["only one caption"])
    book.save(tmp_path / "people.xlsx")
    dataset = people.model_copy(update={"template": tmp_path / "people.xlsx"})
    for header in (None, 1):
        for roles, columns, _ in ROLES.values():
            wanted = dataset.model_copy(update={"template_header": header})
            with capture_logs() as logs, pytest.raises(Rejected) as raised:
                await export("", "excel", dataset=wanted, claims={"roles": roles}, scope="all")
            assert raised.value.code == "bad_template"
            if "hidden_margin" not in columns:
                assert "hidden" not in str(raised.value)
                assert re.search(r"\d", str(raised.value)) is None  # nor how many columns there are
            assert [line["event"] for line in logs if "template" in line["event"]]


@pytest.mark.parametrize(
    ("request_of", "code"),
    [
        ({"columns": ["hidden_margin"]}, "unknown_column"),
        ({"filters": {"email": "name1@example.com"}}, "masked_column"),
        ({"scope": "organisation"}, "missing_claim"),
        ({"scope": "nope"}, "unknown_scope"),
    ],
)
async def test_the_worker_checks_again_what_a_request_is_allowed(
    export: Export, people: Dataset, request_of: dict[str, Any], code: str
) -> None:
    """The rules can have changed since the request was admitted, and a worker has the newest file."""
    with pytest.raises(Rejected) as raised:
        await export("", "csv", dataset=people, **request_of)
    assert raised.value.code == code
    closed = people.model_copy(update={"roles": ("others",)})
    with pytest.raises(Rejected, match="there is no dataset 'people'"):
        await export("", "csv", dataset=closed, claims={"roles": ["finance"]})
