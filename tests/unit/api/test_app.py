"""What can be said about the API without running it."""

from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from api.__main__ import cli
from api.app import create_app
from stream_app.settings import Settings

SETTINGS = Settings(_env_file=None)


def test_every_call_is_documented() -> None:
    document = create_app(SETTINGS).openapi()
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    names = [operation["operationId"] for _, _, operation in operations]
    assert len(set(names)) == len(names)
    for method, path, operation in operations:
        assert operation["summary"], (method, path)
        if path.startswith(("/exports/links/", "/exports/unsubscribe/")):
            assert "security" not in operation, "the link itself is the right"
        elif path.startswith("/exports"):
            assert operation["security"] == [{"bearer": []}]
            assert {"401", "500", "503"} <= operation["responses"].keys()
        for status, answer in operation["responses"].items():
            if status >= "400" and path.startswith("/exports"):
                assert list(answer["content"]) == ["application/problem+json"], (method, path, status)


def test_the_schema_has_no_loose_ends() -> None:
    document = create_app(SETTINGS).openapi()
    text = str(document)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        assert name not in text
    used = {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert used == set(schemas)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/exports/jobs", "GET, POST"),
        ("/exports/jobs/4f1c7a52-6f0e-4b0e-9d5b-0f6f5d1f3a10", "DELETE, GET"),
        ("/exports/jobs/4f1c7a52-6f0e-4b0e-9d5b-0f6f5d1f3a10/download", "GET, HEAD"),
        ("/readyz", "GET"),
    ],
)
async def test_a_wrong_method_lists_the_right_ones(path: str, methods: str) -> None:
    transport = httpx.ASGITransport(create_app(SETTINGS))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        response = await client.patch(path)
    assert (response.status_code, response.headers["allow"]) == (405, methods)


def test_an_unusable_datasets_file_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, [], env={"EXPORTER_DATASETS_FILE": str(tmp_path / "none.toml")})
    assert result.exit_code == 1
    assert "none.toml" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "exports.example.com"])
def test_a_public_address_needs_a_real_secret(host: str) -> None:
    result = CliRunner().invoke(cli, ["--host", host])
    assert result.exit_code == 2
    assert "EXPORTER_JWT_SECRET" in result.stderr
