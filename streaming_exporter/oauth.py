"""Tokens for SASL/OAUTHBEARER by the client credentials grant (RFC 6749, section 4.4)."""

import asyncio
import base64
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from streaming_exporter.kafka_settings import KafkaSettings

ANSWER_SECONDS = 10.0
"""How long the token server may take."""

FRESH = 0.8
"""Share of its lifetime for which a token is used again."""

LIFETIME = 300.0
"""Seconds for which a token is taken to be valid whose server does not say."""

MOST_BYTES = 1_000_000
"""Of an answer; a token has a few thousand."""

_threads = ThreadPoolExecutor(2, thread_name_prefix="kafka-token")


class OAuthTokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """The token for new connections; asked for anew before it runs out. Any event loop may ask."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        cafile = settings.kafka_oauth_cafile
        self._context = ssl.create_default_context(cafile=str(cafile) if cafile else None)
        self._lock = threading.Lock()
        self._token = ""
        self._good_until = 0.0

    async def token(self) -> str:
        """A token that is valid now.

        Raises:
            KafkaConnectionError: the token server is away, or refuses.
        """
        return await asyncio.get_running_loop().run_in_executor(_threads, self._current)

    def extensions(self) -> dict[str, str]:
        """SASL extensions, which some providers of Kafka tell their clusters by."""
        return dict(_pairs(self._settings.kafka_oauth_extensions))

    def _current(self) -> str:
        with self._lock:
            if time.monotonic() >= self._good_until:
                asked = time.monotonic()
                answer = self._ask()
                self._token = answer["access_token"]
                self._good_until = asked + FRESH * _lifetime(answer)
            return self._token

    def _ask(self) -> dict[str, Any]:
        url = self._settings.kafka_oauth_token_url or ""
        try:
            with self._post(url, in_body=False) as answer:
                content = answer.read(MOST_BYTES)
        except urllib.error.HTTPError as error:
            if error.code not in {400, 401}:
                raise self._failure(error) from error
            # Some servers take a client's secret in the body alone (client_secret_post).
            try:
                with self._post(url, in_body=True) as answer:
                    content = answer.read(MOST_BYTES)
            except (OSError, ValueError) as second:
                raise self._failure(second) from second
        except (OSError, ValueError) as error:
            raise self._failure(error) from error
        try:
            found = json.loads(content)
            if not isinstance(found, dict) or not isinstance(found.get("access_token"), str):
                raise ValueError("its answer has no access_token")
        except ValueError as error:
            raise self._failure(error) from error
        return found

    def _post(self, url: str, *, in_body: bool) -> Any:
        settings = self._settings
        secret = settings.kafka_oauth_client_secret
        name, password = settings.kafka_oauth_client_id or "", secret.get_secret_value() if secret else ""
        form = {"grant_type": "client_credentials"}
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if in_body:
            form |= {"client_id": name, "client_secret": password}
        else:
            pair = f"{quote_plus(name)}:{quote_plus(password)}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        for key, value in (
            ("scope", settings.kafka_oauth_scope),
            ("audience", settings.kafka_oauth_audience),
            *_pairs(settings.kafka_oauth_parameters),
        ):
            if value is not None:
                form[key] = value
        request = urllib.request.Request(url, urlencode(form).encode(), headers)  # noqa: S310 - checked
        context = self._context if url.startswith("https:") else None
        return urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=context)  # noqa: S310

    def _failure(self, error: Exception) -> KafkaConnectionError:
        """Without what the server says beyond its code, which can repeat the secret."""
        code = error.code if isinstance(error, urllib.error.HTTPError) else None
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        what = f"HTTP {code}" if code else str(error) or type(error).__name__
        return KafkaConnectionError(f"token server {self._settings.kafka_oauth_token_url}: {what}")


def _lifetime(answer: dict[str, Any]) -> float:
    try:
        return max(0.0, float(answer["expires_in"]))
    except (KeyError, TypeError, ValueError):
        return LIFETIME


def _pairs(text: str | None) -> list[tuple[str, str]]:
    """``a=1&b=2``, as in an address."""
    return parse_qsl(text or "", keep_blank_values=True)
