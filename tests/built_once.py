"""Builds once per process what thousands of tests need and never change: trees of commands, trusted CAs.

A command of typer takes 20 ms of processor time to build, a context of TLS 15 ms to load.
"""

import os
import ssl
from collections.abc import Sequence
from functools import cache

import httpcore2
import typer.testing
from typer.main import get_command

from stream_app.notifications.host_lookups import HostLookups
from stream_app.notifications.public_post import PublicPost
from stream_app.settings import Settings


def keep() -> None:
    """Keep the command tree of each application that ``CliRunner`` runs, and default contexts of TLS."""
    vars(typer.testing)["_get_command"] = command_of
    vars(httpcore2)["default_ssl_context"] = _trusted
    build = PublicPost.__init__

    def __init__(
        self: PublicPost,
        settings: Settings,
        tls: ssl.SSLContext | None = None,
        lookups: HostLookups | None = None,
    ) -> None:
        build(self, settings, tls or _of_system(*_places()), lookups or HostLookups())

    PublicPost.__init__ = __init__  # type: ignore[method-assign]


command_of = cache(get_command)
"""Returns the command of an application."""

_default_ssl_context = httpcore2.default_ssl_context


def _trusted(*, _trust_env: bool = True) -> ssl.SSLContext:
    return _loaded(_trust_env, *(_places() if _trust_env else ()))


def _places() -> Sequence[tuple[str | None, int, int]]:
    return [_version(os.environ.get(name)) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")]


def _version(place: str | None) -> tuple[str | None, int, int]:
    """Return what is different if a file of certificates was replaced at the same path."""
    try:
        state = os.stat(place or "")
    except OSError:
        return place, 0, 0
    return place, state.st_mtime_ns, state.st_size


@cache
def _loaded(trust_env: bool, *places: tuple[str | None, int, int]) -> ssl.SSLContext:
    return _default_ssl_context(_trust_env=trust_env)


@cache
def _of_system(*places: tuple[str | None, int, int]) -> ssl.SSLContext:
    return ssl.create_default_context()
