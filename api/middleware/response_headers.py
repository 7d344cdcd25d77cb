"""Headers that every answer has: what a browser may do with it, and that nobody keeps it.

The strict value is the default; a route that needs something else says so in its own answer.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders

from stream_app.settings import Settings

HSTS_SECONDS = 31_536_000
"""How long a browser that has been here asks by https only: a year."""


def policy(**sources: str) -> str:
    """A Content-Security-Policy that allows nothing but ``sources``, given as ``img_src="'self'"``."""
    closed = {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    directives = closed | {name.replace("_", "-"): value for name, value in sources.items()}
    return "; ".join(f"{name} {value}" for name, value in directives.items())


DEFAULTS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": policy(),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def complete(headers: MutableHeaders, always: Mapping[str, str]) -> None:
    """Add :data:`DEFAULTS` where the answer does not say otherwise, and ``always``."""
    for name, value in DEFAULTS.items():
        headers.setdefault(name, value)
    headers.update(always)


def hsts_headers(settings: Settings) -> dict[str, str]:
    """``Strict-Transport-Security`` where users reach the API by https."""
    if urlsplit(settings.public_url).scheme.lower() != "https":
        return {}
    return {"Strict-Transport-Security": f"max-age={HSTS_SECONDS}"}
