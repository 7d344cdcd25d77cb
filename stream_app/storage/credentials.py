"""Credentials of the object store: the keys of the settings, or those of AWS's provider chain."""

import configparser
import json
import os
import time
from collections.abc import Mapping
from threading import Lock
from typing import Any
from xml.etree.ElementTree import ParseError

import urllib3
from minio.credentials.credentials import Credentials
from minio.credentials.providers import AWSConfigProvider, EnvAWSProvider, IamAwsProvider, Provider
from pydantic import SecretStr

from stream_app.setting_types import is_local_url
from stream_app.settings import Settings
from streaming_exporter.errors import NeedsOperator

STS_ENDPOINT = "AWS_ENDPOINT_URL_STS"
METADATA_ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
METADATA_DISABLED = "AWS_EC2_METADATA_DISABLED"

DEFAULT_NAME = SecretStr("exporter")
"""Access key if only a secret key is set."""
DEFAULT_KEY = SecretStr("exporter-secret")
"""Secret key if only an access key is set, for a store on this machine. It is public."""

RECHECK_SECONDS = 300.0
"""Seconds until AWS's chain is tried again after it had no credentials, although each request needs some."""

CONNECT, ANSWER = 1.0, 5.0
"""Time-outs of a metadata service, in seconds, to connect and to answer. Outside of AWS there is none."""

HOW_TO_FIX = (
    "set EXPORTER_S3_ACCESS_KEY and EXPORTER_S3_SECRET_KEY, or provide the credentials of a role "
    "(docs/operations.md, Credentials)"
)


class NoCredentials(NeedsOperator):
    """There are no credentials: an operator must provide them, or a service of AWS is down."""

    code = "store_credentials_missing"


class StaticKeys(Provider):
    """The keys of the settings. They are read anew for each request, because their files can change."""

    def __init__(self, name: SecretStr, key: SecretStr) -> None:
        self._name = name
        self._key = key

    def retrieve(self) -> Credentials:
        """Return the keys."""
        return Credentials(self._name.get_secret_value().strip(), self._key.get_secret_value())


class ProviderChain(Provider):
    """The credentials of the first provider that has some. It is asked again when they expire.

    It replaces the client library's chain, which stops at the first provider that does not answer, never
    reads a file again, and gives no reasons in its error.
    """

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        """Create a chain of ``providers``, in this order. Their names appear in error texts."""
        self._providers = providers
        self._lock = Lock()

    def retrieve(self) -> Credentials:
        """Return credentials that are valid now.

        Raises:
            NoCredentials: no provider has any.
        """
        reasons = []
        with self._lock:
            for name, provider in self._providers.items():
                try:
                    return provider.retrieve()
                except (ValueError, KeyError, TypeError, OSError, ParseError, configparser.Error) as error:
                    reasons.append(f"{name}: {_short(error)}")
                except urllib3.exceptions.HTTPError as error:
                    reasons.append(f"{name}: does not answer ({type(error).__name__})")
        raise NoCredentials(
            f"object store: there are no credentials; {HOW_TO_FIX}. Looked in " + "; ".join(reasons),
            reason="the service has no credentials for the object store",
        )


class ChainOrDefaults(Provider):
    """The credentials of a chain, or the default keys of a local store while the chain has found none."""

    def __init__(self, chain: ProviderChain) -> None:
        self._chain = chain
        self._lock = Lock()
        self._ask_at: float | None = 0.0

    def retrieve(self) -> Credentials:
        """Return credentials that are valid now.

        Raises:
            NoCredentials: the chain had credentials before, and has none now.
        """
        with self._lock:
            if self._ask_at is not None and time.monotonic() < self._ask_at:
                return StaticKeys(DEFAULT_NAME, DEFAULT_KEY).retrieve()
            try:
                found = self._chain.retrieve()
            except NoCredentials:
                if self._ask_at is None:
                    raise
                self._ask_at = time.monotonic() + RECHECK_SECONDS
                return StaticKeys(DEFAULT_NAME, DEFAULT_KEY).retrieve()
            self._ask_at = None
            return found


def _short(error: Exception) -> str:
    text = str(error)
    if isinstance(error, json.JSONDecodeError):
        text = "its answer is not JSON"
    return (text or type(error).__name__)[:200]


class DisabledProvider(Provider):
    """A provider that is turned off."""

    def __init__(self, why: str) -> None:
        self._why = why

    def retrieve(self) -> Credentials:
        """Raise the reason.

        Raises:
            ValueError: always.
        """
        raise ValueError(self._why)


def credentials_of(settings: Settings) -> Provider:
    """Return the keys of the settings, or else the credentials that AWS's own clients would use.

    These are, in this order: the variables ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and
    ``AWS_SESSION_TOKEN``; the credentials file of AWS (``AWS_SHARED_CREDENTIALS_FILE``, ``AWS_PROFILE``); and
    a role, by a web identity, the container's credentials (ECS, EKS) or the metadata of an EC2 instance. If
    none of them has credentials, a store on this machine gets the default keys.
    """
    if settings.s3_secret_key is not None:
        return StaticKeys(settings.s3_access_key or DEFAULT_NAME, settings.s3_secret_key)
    local = is_local_url(settings.s3_endpoint)
    if settings.s3_access_key is not None and local:
        return StaticKeys(settings.s3_access_key, DEFAULT_KEY)
    chain = ProviderChain(
        {
            "the environment (AWS_ACCESS_KEY_ID)": EnvAWSProvider(),
            "the credentials file of AWS": AWSConfigProvider(),
            **_role(settings),
        }
    )
    return ChainOrDefaults(chain) if local else chain


def _role(settings: Settings) -> dict[str, Provider]:
    http = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT, read=ANSWER),
        retries=urllib3.Retry(total=2, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
    )
    options: dict[str, Any] = {"http_client": http, "region": settings.s3_region}
    if os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return {"the web identity": IamAwsProvider(custom_endpoint=os.environ.get(STS_ENDPOINT), **options)}
    if any(os.environ.get(f"AWS_CONTAINER_CREDENTIALS_{kind}_URI") for kind in ("RELATIVE", "FULL")):
        return {"the container's credentials": IamAwsProvider(**options)}
    if os.environ.get(METADATA_DISABLED, "").lower() == "true":
        return {"the metadata of the instance": DisabledProvider(f"turned off by {METADATA_DISABLED}")}
    endpoint = os.environ.get(METADATA_ENDPOINT, "").rstrip("/") or None
    return {"the metadata of the instance": IamAwsProvider(custom_endpoint=endpoint, **options)}
