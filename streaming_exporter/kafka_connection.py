"""Connections to Kafka, and the topics that the service needs. Needs the extra ``kafka``."""

import logging
import ssl
from datetime import timedelta
from typing import Any

from aiokafka.admin import NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    InvalidConfigurationError,
    KafkaError,
    NoError,
    NotControllerError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from streaming_exporter.errors import BadSettings, Outage, Retryable
from streaming_exporter.events import Topic
from streaming_exporter.kafka_admin import AdminClient
from streaming_exporter.kafka_settings import KafkaSettings
from streaming_exporter.oauth import OAuthTokenProvider

log = logging.getLogger(__name__)

SINGLE_PARTITION = frozenset({Topic.TICKS, Topic.DEAD_LETTERS})

RETENTION = {Topic.AUDIT: timedelta(days=365), Topic.DEAD_LETTERS: timedelta(days=30)}
"""How long the topics that people read later keep messages. The others have the default of the brokers."""

CONFIG_REFUSED = (InvalidConfigurationError, PolicyViolationError)
"""The errors of brokers that do not allow a topic its configuration, such as so long a retention."""

NOT_ALLOWED = (
    TopicAuthorizationFailedError,
    GroupAuthorizationFailedError,
    ClusterAuthorizationFailedError,
)
"""The errors of brokers about a missing right of the principal."""

RIGHTS_ADVICE = "give the principal the rights of its part (docs/operations.md, Kafka)"


class NotAllowed(Outage):
    """Kafka answers, but the principal lacks a right, or a topic is missing that it cannot create."""

    code = "not_allowed"


def hidden_topic(topic: str, right: str) -> NotAllowed:
    """Return the error for a topic that the brokers do not show. They hide it from those without a right."""
    return NotAllowed(
        f"Kafka: the topic {topic} is missing, or this principal has no right to {right} it; create it, or "
        f"{RIGHTS_ADVICE}"
    )


def bootstrap_servers(settings: KafkaSettings) -> list[str]:
    """Return the bootstrap addresses, ``host:port`` each."""
    return [server.strip() for server in settings.kafka_bootstrap_servers.split(",") if server.strip()]


def tls_context(settings: KafkaSettings) -> ssl.SSLContext | None:
    """Return the TLS context, with the client's certificate if there is one; ``None`` without TLS.

    Raises:
        BadSettings: the certificate and its key cannot be used.
    """
    if "SSL" not in settings.kafka_security_protocol.split("_"):
        return None
    context = ssl.create_default_context(
        cafile=str(settings.kafka_ssl_cafile) if settings.kafka_ssl_cafile else None
    )
    if settings.kafka_ssl_certfile is not None:
        password = settings.kafka_ssl_key_password
        try:
            context.load_cert_chain(
                settings.kafka_ssl_certfile,
                settings.kafka_ssl_keyfile,
                # Without a password OpenSSL would ask for it at the terminal.
                password.get_secret_value() if password else "",
            )
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise BadSettings(
                f"EXPORTER_KAFKA_SSL_CERTFILE: {str(settings.kafka_ssl_certfile)!r} cannot be used with its "
                f"key ({error}); allowed: PEM files of a certificate and the key that belongs to it, with "
                "EXPORTER_KAFKA_SSL_KEY_PASSWORD where the key has a password"
            ) from error
    return context


def uses_tokens(settings: KafkaSettings) -> bool:
    """Return whether clients sign in with a token (SASL/OAUTHBEARER)."""
    is_sasl = settings.kafka_security_protocol.startswith("SASL")
    return is_sasl and settings.kafka_sasl_mechanism == "OAUTHBEARER"


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the connection arguments of every aiokafka client."""
    options: dict[str, Any] = {
        "bootstrap_servers": bootstrap_servers(settings),
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": tls_context(settings),
    }
    if uses_tokens(settings):
        options |= {
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_oauth_token_provider": OAuthTokenProvider(settings),
        }
    elif settings.kafka_security_protocol.startswith("SASL"):
        password = settings.kafka_sasl_password
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": password.get_secret_value() if password else None,
        }
    return options


def bootstrap_on_failure(client: AIOKafkaClient) -> None:
    """Make ``client`` use the bootstrap addresses again when none of the brokers that it knows answers.

    All brokers can move to other addresses behind the bootstrap address. aiokafka uses that address only at
    its start; Kafka's own clients do this since KIP-899.
    """
    update = client._metadata_update

    async def update_or_bootstrap(cluster: Any, topics: Any) -> Any:
        if await update(cluster, topics):
            return True
        try:
            await client.bootstrap()
        except (KafkaError, OSError, TimeoutError):
            return False
        log.info("brokers.found_again: %s", client.hosts)
        return await update(cluster, topics)

    client._metadata_update = update_or_bootstrap


def _configs(topic: Topic) -> dict[str, str]:
    kept = RETENTION.get(topic)
    return {} if kept is None else {"retention.ms": str(kept // timedelta(milliseconds=1))}


async def _errors(admin: AdminClient, topics: list[NewTopic]) -> dict[str, type[KafkaError]]:
    """Create topics; return the error of each."""
    response = await admin.create_topics(topics)
    return {name: for_code(code) for name, code, *_ in response.topic_errors}


async def _create(admin: AdminClient, topics: list[NewTopic]) -> dict[str, type[KafkaError]]:
    """Create topics, without their configuration where the brokers refuse it; return the error of each."""
    errors = await _errors(admin, topics)
    if NotControllerError in errors.values():  # with ZooKeeper only the controller creates topics
        await admin._client.force_metadata_update()
        errors |= await _errors(
            admin, [topic for topic in topics if errors[topic.name] is NotControllerError]
        )
    plain = [
        NewTopic(topic.name, topic.num_partitions, topic.replication_factor)
        for topic in topics
        if topic.topic_configs and errors.get(topic.name) in CONFIG_REFUSED
    ]
    if not plain:
        return errors
    second = await _create(admin, plain)
    for name, error in second.items():
        if error is NoError:  # otherwise the brokers refuse something else, or another program has made it
            log.warning("topic.retention_refused: %s keeps messages as long as the brokers' default", name)
    return errors | second


async def ensure_topics(settings: KafkaSettings, *, wanted: str | None = None) -> None:
    """Create the topics that do not exist.

    The brokers do not list topics that the principal has no right to describe. These cannot be created
    either, which is no error if only ``wanted`` is needed.

    Args:
        settings: the connection.
        wanted: the cluster's name of the only topic that the caller needs; ``None`` if it needs all.

    Raises:
        NotAllowed: the principal has no right to create a topic that is needed.
        Retryable: Kafka cannot be reached or refuses to create them.
    """
    admin = AdminClient(**client_options(settings), request_timeout_ms=15_000)
    try:
        await admin.start()
        try:
            known = set(await admin.list_topics())
            missing = [
                NewTopic(
                    settings.topic(topic),
                    num_partitions=1 if topic in SINGLE_PARTITION else settings.kafka_partitions,
                    replication_factor=settings.kafka_replication_factor,
                    topic_configs=_configs(topic),
                )
                for topic in Topic
                if settings.topic(topic) not in known
            ]
            if missing:
                for name, error in (await _create(admin, missing)).items():
                    if error in (NoError, TopicAlreadyExistsError) or wanted not in (None, name):
                        continue
                    if error in NOT_ALLOWED:
                        raise hidden_topic(name, "DESCRIBE")
                    raise error()
        finally:
            await admin.close()
    except (KafkaError, OSError) as error:
        raise Retryable(f"Kafka at {settings.kafka_bootstrap_servers}: {error!r}") from error
