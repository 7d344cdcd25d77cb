"""Checks of the API that need no running server."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import uvicorn
from itsdangerous import BadSignature, Signer
from itsdangerous.encoding import base64_encode
from pydantic import ValidationError
from typer.testing import CliRunner

from api.__main__ import cli, refuse_unsafe
from api.app import create_app
from stream_app.keyed_hashes import derive_key
from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.settings import Settings
from tests.unit.api.apps import app_of, openapi

SETTINGS = Settings(_env_file=None)


def test_every_call_is_documented() -> None:
    document = openapi()
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    names = [operation["operationId"] for _, _, operation in operations]
    assert len(set(names)) == len(names)
    for method, path, operation in operations:
        assert operation["summary"], (method, path)
        if any(item["in"] == "query" for item in operation.get("parameters", ())):
            assert "422" in operation["responses"], (method, path)
        if path.startswith(("/exports/links/", "/exports/unsubscribe/")):
            assert "security" not in operation, "the link itself is the right"
        elif path.startswith("/exports"):
            assert operation["security"] == [{"bearer": []}]
            assert {"401", "500", "503"} <= operation["responses"].keys()
        for status, answer in operation["responses"].items():
            if status >= "400" and path.startswith("/exports"):
                assert list(answer["content"]) == ["application/problem+json"], (method, path, status)


def test_all_references_of_the_schema_exist() -> None:
    document = openapi()
    text = str(document)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        assert name not in text
    used = {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert used == set(schemas)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/exports/jobs", "GET, HEAD, POST"),
        ("/exports/jobs/4f1c7a52-6f0e-4b0e-9d5b-0f6f5d1f3a10", "DELETE, GET, HEAD"),
        ("/exports/jobs/4f1c7a52-6f0e-4b0e-9d5b-0f6f5d1f3a10/download", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/exports/schedules:estimate", "POST"),
    ],
)
async def test_a_wrong_method_lists_the_right_ones(path: str, methods: str) -> None:
    transport = httpx2.ASGITransport(app_of())
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
        response = await client.patch(path)
    assert (response.status_code, response.headers["allow"]) == (405, methods)


def test_an_unusable_datasets_file_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, [], env={"EXPORTER_DATASETS_FILE": str(tmp_path / "none.toml")})
    assert result.exit_code == 2
    assert "none.toml" in result.stderr
    assert len(result.stderr.splitlines()) == 1


GOOD = "wq8Zr1TfK0vYh3LmXc6Jb9NeUs2PdGa5"
PROVIDER = {
    "EXPORTER_JWT_JWKS_URL": "https://id.example.com/jwks",
    "EXPORTER_JWT_AUDIENCE": "exports",
    "EXPORTER_JWT_ISSUER": "https://id.example.com",
}
PUBLIC = {"EXPORTER_PUBLIC_URL": "https://exports.example.com"}


@pytest.mark.parametrize(
    ("host", "env", "variable"),
    [
        ("0.0.0.0", {}, "JWT_SECRET"),
        ("192.0.2.1", {}, "JWT_SECRET"),
        ("::", {}, "JWT_SECRET"),
        ("exports.example.com", {}, "JWT_SECRET"),
        ("127.0.0.1", PUBLIC, "JWT_SECRET"),
        ("0.0.0.0", {"EXPORTER_JWT_SECRET": "a"}, "JWT_SECRET"),
        ("0.0.0.0", {"EXPORTER_JWT_SECRET": " "}, "JWT_SECRET"),
        ("127.0.0.1", PUBLIC | {"EXPORTER_JWT_SECRET": GOOD, "EXPORTER_LINK_SECRET": "b"}, "LINK_SECRET"),
        ("0.0.0.0", PROVIDER, "LINK_SECRET"),
        ("127.0.0.1", PROVIDER | PUBLIC, "LINK_SECRET"),
        ("127.0.0.1", PROVIDER | {"EXPORTER_JWT_AUDIENCE": ""}, "JWT_AUDIENCE"),
        ("127.0.0.1", PROVIDER | {"EXPORTER_JWT_ISSUER": ""}, "JWT_ISSUER"),
        ("127.0.0.1", PROVIDER | {"EXPORTER_JWT_JWKS_URL": "http://id.example.com/jwks"}, "JWT_JWKS_URL"),
        ("127.0.0.1", PROVIDER | {"EXPORTER_JWT_JWKS_URL": "file:///jwks.json"}, "JWT_JWKS_URL"),
    ],
)
def test_the_api_does_not_start_with_unsafe_settings(
    host: str, env: dict[str, str], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2, S3: it prints one line that names the variable, before it opens a port."""
    monkeypatch.setattr(uvicorn, "run", lambda *_, **__: pytest.fail("it listens"))
    result = CliRunner().invoke(cli, ["--host", host], env=env)
    assert result.exit_code == 2
    assert f"EXPORTER_{variable}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("host", "env"),
    [
        ("127.0.0.1", {}),
        ("0.0.0.0", PUBLIC | {"EXPORTER_JWT_SECRET": GOOD}),
        ("0.0.0.0", PUBLIC | PROVIDER | {"EXPORTER_LINK_SECRET": GOOD}),
        ("0.0.0.0", PROVIDER | {"EXPORTER_LINK_SECRET": GOOD, "EXPORTER_JWT_AUDIENCE": "*"}),
    ],
)
def test_the_api_starts_with_safe_settings(
    host: str, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    refuse_unsafe(Settings(_env_file=None), host)


def test_the_key_of_links_signs_no_tokens() -> None:
    """S3: keys for other purposes are derived. Links that earlier versions signed are still valid."""
    settings = Settings(_env_file=None, jwt_secret=GOOD)
    delivery = uuid4()
    token = DeliveryLinks(settings).download(delivery).rpartition("/")[2]
    assert DeliveryLinks(settings).read("links", token) == delivery
    shared = Signer(GOOD, salt="exporter.links", key_derivation="hmac", digest_method=sha256)
    with pytest.raises(BadSignature):
        shared.unsign(token)
    older = shared.sign(base64_encode(delivery.bytes)).decode()
    assert DeliveryLinks(settings).read("links", older) == delivery
    assert derive_key(GOOD, "links") != derive_key(GOOD, "cursors") != derive_key(GOOD + "x", "cursors")


async def preflight(origins: str, origin: str) -> httpx2.Response:
    app = create_app(SETTINGS.model_copy(update={"cors_origins": origins}))
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, idempotency-key, last-event-id",
    }
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://api") as client:
        return await client.options("/exports/jobs", headers=asked)


@pytest.mark.parametrize(
    "origins", ["https://app.example.com", "https://a.example, https://app.example.com", "*"]
)
async def test_pages_of_allowed_origins_can_call(origins: str) -> None:
    response = await preflight(origins, "https://app.example.com")
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] in ("https://app.example.com", "*")
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("origins", ["", "https://app.example.com"])
async def test_pages_of_other_origins_cannot_call(origins: str) -> None:
    response = await preflight(origins, "https://evil.example.com")
    assert response.status_code in (400, 405)
    assert "access-control-allow-origin" not in response.headers


async def test_allowed_pages_see_errors_and_their_headers() -> None:
    app = create_app(SETTINGS.model_copy(update={"cors_origins": "https://app.example.com"}))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://api") as client:
        response = await client.get("/nowhere", headers={"Origin": "https://app.example.com"})
    assert response.status_code == 404
    assert response.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "Retry-After" in response.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origins", ["app.example.com", "https://a.example/path", "https://a b", "ftp://a"])
def test_an_invalid_origin_is_refused(origins: str) -> None:
    with pytest.raises(ValidationError):
        Settings(_env_file=None, cors_origins=origins)


def test_secrets_are_not_shown() -> None:
    secrets = {
        "EXPORTER_JWT_SECRET": "jwt-hunter2-jwt-hunter2-jwt-hunter2",
        "EXPORTER_S3_SECRET_KEY": "s3-hunter2",
        "EXPORTER_DATABASE_URL": "postgresql://exporter:db-hunter2@127.0.0.1:1/exporter",
        "EXPORTER_SOURCE_DATABASE_URL": "postgresql://reader:source-hunter2@127.0.0.1:1/source",
        "EXPORTER_LINK_SECRET": "link-hunter2",
        "EXPORTER_KAFKA_SASL_PASSWORD": "kafka-hunter2",
    }
    fields: dict[str, Any] = {
        name.removeprefix("EXPORTER_").lower(): value for name, value in secrets.items()
    }
    settings = Settings(_env_file=None, **fields)
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"
    result = CliRunner().invoke(cli, ["--host", "0.0.0.0"], env={**secrets, "EXPORTER_WORKER_SLOTS": "none"})
    assert result.exit_code != 0
    assert "hunter2" not in result.output


def test_the_document_of_the_api_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody can ask for it, also without a token."""
    app = app_of()
    first = json.dumps(app.openapi())
    monkeypatch.setattr("api.errors.ProblemDocument.model_json_schema", None)
    assert json.dumps(app.openapi()) == first
