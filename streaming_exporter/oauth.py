"""Tokens for SASL/OAUTHBEARER by the client credentials grant (RFC 6749, section 4.4)."""

import asyncio
import base64
import json
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from streaming_exporter.kafka_settings import KafkaSettings

TIMEOUT_SECONDS = 10.0
"""Time-out of a call to the token server."""

REUSED_SHARE = 0.8
"""Share of a token's lifetime in which it is used again."""

DEFAULT_LIFETIME = 300.0
"""Lifetime in seconds of a token whose server does not state one."""

MAX_ANSWER_BYTES = 1_000_000
"""Limit of bytes that are read of a response. A token has a few thousand."""


def _new_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="kafka-token")


_threads = _new_threads()
_providers: "weakref.WeakSet[OAuthTokenProvider]" = weakref.WeakSet()


def _renew_after_fork() -> None:
    """Replace what the child of a fork cannot use: no thread runs there, and locks can be held."""
    global _threads
    _threads = _new_threads()
    for provider in _providers:
        provider.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)


class OAuthTokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Provides the token of new connections and fetches a new one before it expires.

    Several event loops can share one provider.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        cafile = settings.kafka_oauth_cafile
        self._context = ssl.create_default_context(cafile=str(cafile) if cafile else None)
        self._lock = threading.Lock()
        self._token = ""
        self._reused_until = 0.0
        _providers.add(self)

    def renew_lock(self) -> None:
        """Make a lock that no thread holds, in the child of a fork."""
        self._lock = threading.Lock()

    async def token(self) -> str:
        """Return a token that is valid now.

        Raises:
            KafkaConnectionError: the token server cannot be reached, or refuses.
        """
        return await asyncio.get_running_loop().run_in_executor(_threads, self._current)

    def extensions(self) -> dict[str, str]:
        """Return the SASL extensions, by which some providers of Kafka choose the cluster."""
        return dict(_pairs(self._settings.kafka_oauth_extensions))

    def _current(self) -> str:
        with self._lock:
            if time.monotonic() >= self._reused_until:
                asked = time.monotonic()
                answer = self._fetch()
                self._token = answer["access_token"]
                self._reused_until = asked + REUSED_SHARE * _lifetime(answer)
            return self._token

    def _fetch(self) -> dict[str, Any]:
        url = self._settings.kafka_oauth_token_url or ""
        try:
            with self._post(url, in_body=False) as answer:
                content = answer.read(MAX_ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            if error.code not in {400, 401}:
                raise self._failure(error) from error
            # Some servers accept the client's secret only in the body (client_secret_post).
            try:
                with self._post(url, in_body=True) as answer:
                    content = answer.read(MAX_ANSWER_BYTES)
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
        return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context)  # noqa: S310

    def _failure(self, error: Exception) -> KafkaConnectionError:
        """Return the error without the server's own text, which can repeat the secret."""
        code = error.code if isinstance(error, urllib.error.HTTPError) else None
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        what = f"HTTP {code}" if code else str(error) or type(error).__name__
        return KafkaConnectionError(f"token server {self._settings.kafka_oauth_token_url}: {what}")


def _lifetime(answer: dict[str, Any]) -> float:
    try:
        return max(0.0, float(answer["expires_in"]))
    except (KeyError, TypeError, ValueError):
        return DEFAULT_LIFETIME


def _pairs(text: str | None) -> list[tuple[str, str]]:
    """Parse ``a=1&b=2``, as in a URL's query."""
    return parse_qsl(text or "", keep_blank_values=True)
