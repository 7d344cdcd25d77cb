"""Headers of every response: what a browser can do with it, and that no cache stores it.

The defaults are strict. A route that needs something else sets the header in its own response.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders

from stream_app.settings import Settings

HSTS_SECONDS = 31_536_000
"""Time for which a browser uses only https after its first visit: one year."""


def content_security_policy(**sources: str) -> str:
    """Return a Content-Security-Policy that allows only ``sources``, given as ``img_src="'self'"``."""
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
    "Content-Security-Policy": content_security_policy(),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add_headers(headers: MutableHeaders, always: Mapping[str, str]) -> None:
    """Add ``always``, and those of :data:`DEFAULTS` that the response does not set itself."""
    for name, value in DEFAULTS.items():
        headers.setdefault(name, value)
    headers.update(always)


def hsts_headers(settings: Settings) -> dict[str, str]:
    """Return ``Strict-Transport-Security`` if users reach the API by https."""
    if urlsplit(settings.public_url).scheme.lower() != "https":
        return {}
    return {"Strict-Transport-Security": f"max-age={HSTS_SECONDS}"}
