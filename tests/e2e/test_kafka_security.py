"""P14: client certificates and tokens, on a real broker that requires them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from psutil import Process

from dev.stack import Stack
from stream_app.kafka.brokers import Brokers
from stream_app.settings import Settings
from streaming_exporter.errors import BadSettings, Outage, PublishError
from streaming_exporter.events import Topic
from streaming_exporter.kafka_connection import ensure_topics, tls_context
from streaming_exporter.publisher import Publisher
from tests.e2e.deployment import Deployment
from tests.e2e.listeners import PASSWORD, Certificates, SecuredKafka, TokenServer
from tests.waiting import patient, until_async

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokens() -> TokenServer:
    return TokenServer()


@pytest.fixture(scope="module")
def token_address(tokens: TokenServer) -> Iterator[str]:
    with tokens.serving() as address:
        yield address


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def broker(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, token_address: str
) -> Iterator[SecuredKafka]:
    folder: Path = tmp_path_factory.mktemp("secured")
    service = SecuredKafka(folder, certificates, f"{token_address}/keys")
    service.start()
    yield service
    service.kill()
    service.discard()


@pytest.fixture(scope="module")
def mtls(broker: SecuredKafka, certificates: Certificates) -> dict[str, str]:
    """Variables of the listener that requires certificates."""
    certificate, key = certificates.make("exporter", password=PASSWORD)
    return {
        "EXPORTER_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{broker.mtls_port}",
        "EXPORTER_KAFKA_SECURITY_PROTOCOL": "SSL",
        "EXPORTER_KAFKA_SSL_CAFILE": str(certificates.authority),
        "EXPORTER_KAFKA_SSL_CERTFILE": str(certificate),
        "EXPORTER_KAFKA_SSL_KEYFILE": str(key),
        "EXPORTER_KAFKA_SSL_KEY_PASSWORD": PASSWORD,
    }


@pytest.fixture(scope="module")
def oauth(broker: SecuredKafka, certificates: Certificates, token_address: str) -> dict[str, str]:
    """Variables of the listener that requires tokens."""
    return {
        "EXPORTER_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{broker.oauth_port}",
        "EXPORTER_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "EXPORTER_KAFKA_SSL_CAFILE": str(certificates.authority),
        "EXPORTER_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "EXPORTER_KAFKA_OAUTH_TOKEN_URL": f"{token_address}/token",
        "EXPORTER_KAFKA_OAUTH_CLIENT_ID": TokenServer.CLIENT,
        "EXPORTER_KAFKA_OAUTH_CLIENT_SECRET": TokenServer.SECRET,
        "EXPORTER_KAFKA_OAUTH_SCOPE": "kafka",
        "EXPORTER_KAFKA_OAUTH_AUDIENCE": "api://kafka",
        "EXPORTER_KAFKA_OAUTH_PARAMETERS": "resource=a%20b&tenant=c",
        "EXPORTER_KAFKA_OAUTH_EXTENSIONS": "logicalCluster=lkc-1",
    }


@pytest.fixture
async def closed_in_order(broker: SecuredKafka) -> AsyncIterator[None]:
    """Wait until the event loop has closed the refused TLS connections."""
    yield
    ports = {broker.mtls_port, broker.oauth_port}
    await until_async(
        lambda: not any(item.raddr and item.raddr.port in ports for item in Process().net_connections("tcp"))
    )


def settings_of(variables: dict[str, str], **changed: str | None) -> Settings:
    fields = {name.removeprefix("EXPORTER_").lower(): value for name, value in variables.items()}
    return Settings(_env_file=None, **(fields | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize("listener", ["mtls", "oauth"])
def test_every_client_of_a_deployment_can_connect(
    stack: Stack, listener: str, request: pytest.FixtureRequest, tokens: TokenServer
) -> None:
    """The worker's consumer and producer, its checks, the admin client, the publisher of API and ticker."""
    own = Deployment(stack, **request.getfixturevalue(listener))
    worker = stack.start_worker(settings=own.variables)
    try:
        asyncio.run(_ask(own))
    finally:
        worker.kill()
        own.close()
    if listener == "oauth":
        assert tokens.form["scope"] == ["kafka"]
        assert tokens.form["audience"] == ["api://kafka"]
        assert (tokens.form["resource"], tokens.form["tenant"]) == (["a b"], ["c"])


async def _ask(own: Deployment) -> None:
    from tests.e2e.deployment import request

    event = request()
    async with Publisher(own.settings) as publisher:
        await publisher.publish(event)
    await own.has({event.job_id}, within=60)
    brokers = Brokers(own.settings, client_id="t")

    async def stable() -> bool:
        return (await brokers.group()).is_stable

    await until_async(stable, ignoring=(Outage,))
    place = (own.settings.topic(Topic.EVENTS), 0)
    assert (await until_async(lambda: brokers.end_offsets([place]), ignoring=(Outage,))).keys()
    await brokers.close()


@pytest.mark.usefixtures("closed_in_order")
async def test_a_client_without_a_certificate_is_refused(mtls: dict[str, str]) -> None:
    nobody = settings_of(mtls, kafka_ssl_certfile=None, kafka_ssl_keyfile=None, kafka_ssl_key_password=None)
    async with Publisher(nobody, timeout=patient(3)) as publisher:
        with pytest.raises(PublishError):
            await publisher.check()
    await ensure_topics(settings_of(mtls))


@pytest.mark.usefixtures("closed_in_order")
@pytest.mark.parametrize(
    "changed", [{"kafka_oauth_client_secret": "wrong"}, {"kafka_oauth_token_url": "http://127.0.0.1:1/"}]
)
async def test_a_client_without_a_token_is_refused(oauth: dict[str, str], changed: dict[str, str]) -> None:
    """The error has the reason, and not the secret that the token server repeats."""
    nobody = settings_of(oauth, **changed)
    async with Publisher(nobody, timeout=patient(3)) as publisher:
        with pytest.raises(PublishError):
            await publisher.check()
    brokers = Brokers(nobody, client_id="t", timeout=patient(3))
    with pytest.raises(Outage) as caught:
        await brokers.end_offsets([("x", 0)])
    assert "never repeat" not in str(caught.value)
    await brokers.close()


async def test_a_token_server_can_require_the_secret_in_the_body(
    oauth: dict[str, str], tokens: TokenServer
) -> None:
    tokens.basic = False
    try:
        async with Publisher(settings_of(oauth), timeout=patient(20)) as publisher:
            await publisher.check()
    finally:
        tokens.basic = True


async def test_a_token_is_used_for_most_of_its_time(oauth: dict[str, str], tokens: TokenServer) -> None:
    from streaming_exporter.oauth import OAuthTokenProvider

    provider = OAuthTokenProvider(settings_of(oauth))
    given = tokens.given
    assert provider.extensions() == {"logicalCluster": "lkc-1"}
    assert await provider.token() == await provider.token()
    assert tokens.given == given + 1
    provider._reused_until = 0.0
    await provider.token()
    assert tokens.given == given + 2


@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_key_that_cannot_be_read_is_named(mtls: dict[str, str], password: str | None) -> None:
    """The password is not asked for on a terminal."""
    with pytest.raises(BadSettings, match="EXPORTER_KAFKA_SSL_CERTFILE: "):
        tls_context(settings_of(mtls, kafka_ssl_key_password=password))


@pytest.mark.parametrize(
    ("listener", "missing", "named"),
    [
        ("oauth", "kafka_oauth_token_url", "EXPORTER_KAFKA_OAUTH_TOKEN_URL"),
        ("oauth", "kafka_oauth_client_id", "EXPORTER_KAFKA_OAUTH_CLIENT_ID"),
        ("oauth", "kafka_oauth_client_secret", "EXPORTER_KAFKA_OAUTH_CLIENT_SECRET"),
        ("mtls", "kafka_ssl_certfile", "EXPORTER_KAFKA_SSL_CERTFILE"),
        ("mtls", "kafka_security_protocol", "EXPORTER_KAFKA_SSL_CERTFILE"),
    ],
)
def test_settings_that_need_each_other_are_required(
    listener: str, missing: str, named: str, request: pytest.FixtureRequest
) -> None:
    variables = dict(request.getfixturevalue(listener))
    del variables[f"EXPORTER_{missing.upper()}"]
    with pytest.raises(ValueError, match=named):
        settings_of(variables)
