"""Encrypted exports through the whole pipeline: what is stored is encrypted, and its reader gets the file."""

import hashlib
import io
from collections.abc import Callable
from typing import Any

import asyncpg
import pyrage
import pytest
import pyzipper

from stream_app.datasets.models import Dataset
from stream_app.exports.files.encryption import FINGERPRINT
from stream_app.exports.files.passwords import FilePasswords
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.pipeline import Exporter
from stream_app.exports.task import ExportProgress
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import Exported, exported_by, task_for
from tests.integration.exports.test_failures import objects

IDENTITY = pyrage.x25519.Identity.generate()
AGE = {"age": [str(IDENTITY.to_public())]}
ZIP = {"zip_password": True}
PASSWORDS = FilePasswords(b"k" * 32)


@pytest.fixture
async def things(database: asyncpg.Connection, schema: str) -> Dataset:
    await database.execute(
        "CREATE TABLE things AS SELECT n AS id, 'secret text ' || md5(n::text) AS text "
        "FROM generate_series(1, 3000) n; ALTER TABLE things ADD PRIMARY KEY (id)"
    )
    return Dataset(name="things", table=f"{schema}.things")


@pytest.fixture
def exporter(exporter_of: Callable[..., Exporter], things: Dataset) -> Exporter:
    return exporter_of(things, passwords=lambda: PASSWORDS)


def opened(file: Exported, password: str) -> tuple[str | None, bytes]:
    """Return the name and the content of the file inside."""
    if file.data.file_name and file.data.file_name.endswith(".age"):
        return None, pyrage.decrypt(file.content, [IDENTITY])
    with pyzipper.AESZipFile(io.BytesIO(file.content)) as archive:
        archive.setpassword(password.encode())
        [name] = archive.namelist()
        return name, archive.read(name)


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("encrypt", [AGE, ZIP], ids=["age", "zip"])
async def test_each_format_is_the_same_file_inside(
    exporter: Exporter, storage: ObjectStore, things: Dataset, name: str, encrypt: dict[str, Any]
) -> None:
    compression = "gzip" if FORMATS[name].compressible else "none"
    wanted = {"options": {"compression": compression}, "filters": {"id": {"lte": 50}}}
    plain = await exported_by(exporter, storage, things, name, **wanted)
    file = await exported_by(exporter, storage, things, name, encrypt=encrypt, **wanted)
    key = str(file.data.key)
    inside, content = opened(file, PASSWORDS(key.split("/")[1]))
    suffix = ".age" if encrypt is AGE else ".zip"
    assert file.data.file_name == f"{plain.data.file_name}{suffix}"
    assert inside in (None, plain.data.file_name)
    assert b"secret text" not in file.content
    assert content[:4] == plain.content[:4]
    if name in ("csv", "json", "ndjson"):
        assert content == plain.content
    assert file.data.sha256 == hashlib.sha256(file.content).hexdigest()
    assert file.data.file_size == len(file.content)
    assert file.data.manifest is not None
    assert file.data.manifest["encryption"] == encrypt
    assert file.data.manifest.get(FINGERPRINT) == (None if encrypt is AGE else PASSWORDS.fingerprint)


async def test_the_password_is_made_from_the_secret_of_now(
    exporter_of: Callable[..., Exporter], storage: ObjectStore, things: Dataset
) -> None:
    """The secret in a file can change while the worker runs, and the API uses the new one at once."""
    now = [FilePasswords(b"a" * 32)]
    exporter = exporter_of(things, passwords=lambda: now[0])
    for key in (b"a", b"b"):
        now[0] = FilePasswords(key * 32)
        file = await exported_by(exporter, storage, things, "csv", encrypt=ZIP)
        assert opened(file, now[0](str(file.data.key).split("/")[1]))[1]
        assert file.data.manifest is not None
        assert file.data.manifest[FINGERPRINT] == now[0].fingerprint


@pytest.mark.parametrize("encrypt", [AGE, ZIP], ids=["age", "zip"])
async def test_split_files_are_encrypted_one_by_one_and_are_no_larger_than_their_limit(
    exporter: Exporter, storage: ObjectStore, database: asyncpg.Connection, schema: str,
    encrypt: dict[str, Any], exporter_of: Callable[..., Exporter],
) -> None:  # fmt: skip
    await database.execute(
        "CREATE TABLE wide AS SELECT n AS id, (SELECT string_agg(md5((n * m)::text), '') "
        "FROM generate_series(1, 30) m) AS text FROM generate_series(1, 3500) n"
    )
    dataset = Dataset(name="wide", table=f"{schema}.wide")
    request = ExportRequest.parse(
        {
            "user_id": "u", "export_type": "wide", "format": "csv", "scope": "all", "encrypt": encrypt,
            "split": {"bytes": 2**20}, "options": {"header": False},
        }
    )  # fmt: skip
    task = task_for(request)
    result = await exporter_of(dataset, passwords=lambda: PASSWORDS).run(task, ExportProgress())
    assert len(result.files) > 2
    lines = 0
    for file in result.files:
        content = storage.read(file.key)
        assert len(content) == file.file_size <= 2**20
        if encrypt is AGE:
            lines += pyrage.decrypt(content, [IDENTITY]).count(b"\n")
        else:
            with pyzipper.AESZipFile(io.BytesIO(content)) as archive:
                archive.setpassword(PASSWORDS(task.name).encode())
                lines += archive.read(archive.namelist()[0]).count(b"\n")
    assert lines == 3500
    assert max(file.file_size for file in result.files) > 2**20 * 0.5
    storage.removal.remove_result(result.key)


async def test_nothing_is_written_without_a_password(
    exporter_of: Callable[..., Exporter], things: Dataset, storage: ObjectStore
) -> None:
    request = ExportRequest.parse(
        {"user_id": "u", "export_type": "things", "format": "csv", "scope": "all", "encrypt": ZIP}
    )
    task = task_for(request)
    with pytest.raises(Rejected, match="EXPORTER_LINK_SECRET"):
        await exporter_of(things).run(task, ExportProgress())
    assert objects(storage, f"jobs/{task.name}/") == []
