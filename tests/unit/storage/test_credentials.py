"""Credentials as AWS's own clients find them (P13), from local replacements of AWS's services.

What answers here is no AWS: it gives the documented answers of STS, of the credentials service of containers
and of the metadata service of instances.
"""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3
from minio.credentials.credentials import Credentials

from stream_app.settings import Settings
from stream_app.storage import credentials as s3_credentials
from stream_app.storage.credentials import NoCredentials, ProviderChain, credentials_of
from stream_app.storage.s3_client import s3_client
from streaming_exporter.errors import NeedsOperator


class StandIn(ThreadingHTTPServer):
    """Answers like STS and like the metadata services of containers and instances."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []
        self.lifetime = timedelta(hours=1)

    def credentials(self, name: str) -> dict[str, str]:
        """Return new credentials at each call."""
        until = datetime.now(UTC) + self.lifetime
        return {
            "Code": "Success",
            "AccessKeyId": f"{name}-{len(self.asked)}",
            "SecretAccessKey": "secret",
            "Token": f"{name}-token",
            "Expiration": f"{until:%Y-%m-%dT%H:%M:%SZ}",
        }


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _say(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._say("session")

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.path)
        if self.path == "/container":
            assert self.headers["Authorization"] == "pod-token"
            self._say(json.dumps(server.credentials("container")))
        elif self.headers["X-aws-ec2-metadata-token"] != "session":
            self.send_error(401)
        elif self.path.endswith("/security-credentials/"):
            self._say("the-role")
        else:
            assert self.path.endswith("/the-role")
            self._say(json.dumps(server.credentials("instance")))

    def do_POST(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.server.asked.append(query["Action"][0])
        assert query["WebIdentityToken"] == ["the-jwt"]
        assert query["RoleArn"] == ["arn:aws:iam::1:role/exporter"]
        found = self.server.credentials("web")
        self._say(
            "<AssumeRoleWithWebIdentityResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'>"
            "<AssumeRoleWithWebIdentityResult><Credentials>"
            f"<AccessKeyId>{found['AccessKeyId']}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>"
            f"<SessionToken>{found['Token']}</SessionToken><Expiration>{found['Expiration']}</Expiration>"
            "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def settings(**changes: object) -> Settings:
    return Settings.model_validate(changes)


ELSEWHERE = "https://s3.example.com"
LOCAL = ["127.0.0.1:9000", "http://localhost:9000", "http://[::1]:9000", "https://127.0.0.2"]


@pytest.mark.parametrize("endpoint", LOCAL)
def test_a_store_on_this_machine_has_default_keys(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are used after the chain, and complete a key that was given alone."""
    found = credentials_of(settings(s3_endpoint=endpoint)).retrieve()
    assert (found.access_key, found.secret_key) == ("exporter", "exporter-secret")
    found = credentials_of(settings(s3_endpoint=endpoint, s3_access_key="mine")).retrieve()
    assert (found.access_key, found.secret_key) == ("mine", "exporter-secret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    assert credentials_of(settings(s3_endpoint=endpoint)).retrieve().access_key == "other"


def test_any_other_store_has_no_default_keys() -> None:
    for endpoint in (ELSEWHERE, "minio:9000", "10.0.0.1:9000"):
        with pytest.raises(NeedsOperator, match="there are no credentials"):
            credentials_of(settings(s3_endpoint=endpoint)).retrieve()
        with pytest.raises(ValueError, match="EXPORTER_S3_SECRET_KEY: it is not set"):
            settings(s3_endpoint=endpoint, s3_access_key="mine")


def test_an_empty_chain_is_asked_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request asks for credentials. After the chain had some, the defaults are not used."""
    asked = 0

    def retrieve(_: ProviderChain) -> Credentials:
        nonlocal asked
        asked += 1
        if asked == 2:
            return Credentials("found", "key")
        raise NoCredentials("none", reason="none")

    monkeypatch.setattr(ProviderChain, "retrieve", retrieve)
    provider = credentials_of(settings())
    assert {provider.retrieve().access_key for _ in range(5)} == {"exporter"}
    assert asked == 1
    monkeypatch.setattr(s3_credentials, "RECHECK_SECONDS", 0.0)
    provider = credentials_of(settings())
    assert provider.retrieve().access_key == "found"
    with pytest.raises(NoCredentials):
        provider.retrieve()


def test_keys_of_the_settings_are_used_without_other_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    found = credentials_of(settings(s3_access_key="mine", s3_secret_key="key")).retrieve()
    assert (found.access_key, found.secret_key, found.session_token) == ("mine", "key", None)


def test_changed_key_files_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P19."""
    for name in ("ACCESS", "SECRET"):
        (tmp_path / name).write_text("old\n")
        monkeypatch.setenv(f"EXPORTER_S3_{name}_KEY_FILE", str(tmp_path / name))
    provider = credentials_of(settings())
    assert provider.retrieve().access_key == "old"
    (tmp_path / "ACCESS").write_text("newer\n")
    (tmp_path / "SECRET").write_text("newer too\n")
    found = provider.retrieve()
    assert (found.access_key, found.secret_key) == ("newer", "newer too")


def test_variables_with_a_session_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, name.lower())
    found = credentials_of(settings()).retrieve()
    assert found.session_token == "aws_session_token"
    client = s3_client(settings(), "http://h", 1, retry_seconds=0)
    link = client.get_presigned_url("GET", "bucket", "key")
    assert "X-Amz-Security-Token=aws_session_token" in link


def test_the_credentials_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "exports")
    provider = credentials_of(settings())
    for name in ("first", "second"):
        file.write_text(
            f"[exports]\naws_access_key_id={name}\naws_secret_access_key=s\naws_session_token=t\n"
        )
        found = provider.retrieve()
        assert (found.access_key, found.session_token) == (name, "t")
    file.write_text("no configuration file")
    with pytest.raises(NeedsOperator, match="the credentials file of AWS"):
        provider.retrieve()


def test_a_web_identity(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EKS gives it to service accounts."""
    (tmp_path / "token").write_text("the-jwt")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/exporter")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", stand_in.url)
    found = credentials_of(settings()).retrieve()
    assert found.access_key.startswith("web-")
    assert found.session_token == "web-token"
    assert stand_in.asked == ["AssumeRoleWithWebIdentity"]


def test_a_container(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """ECS gives them to tasks."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{stand_in.url}/container")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod-token")
    found = credentials_of(settings()).retrieve()
    assert found.session_token == "container-token"


def test_the_credentials_of_an_instance_and_their_expiry(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IMDSv2 needs a session first. Credentials are kept until they expire, and then requested again."""
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"{stand_in.url}/")
    provider = credentials_of(settings())
    first = provider.retrieve()
    assert first.session_token == "instance-token"
    assert provider.retrieve() == first
    stand_in.lifetime = timedelta(seconds=2)
    other = credentials_of(settings())
    assert other.retrieve() != other.retrieve()


def test_an_unavailable_metadata_service_is_asked_again(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked again by the retries of a call, and by the next call."""
    pauses: list[float] = []
    monkeypatch.setattr(urllib3.Retry, "sleep", lambda retry, *_: pauses.append(retry.get_backoff_time()))
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(NeedsOperator, match="the metadata of the instance: does not answer") as raised:
        credentials_of(settings(s3_endpoint=ELSEWHERE)).retrieve()
    assert pauses == [0, 0.4], "two retries"
    for place in ("AWS_ACCESS_KEY_ID", "credentials file", "EXPORTER_S3_ACCESS_KEY"):
        assert place in str(raised.value)
