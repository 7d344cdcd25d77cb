"""Settings that are allowed, and unwise."""

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from stream_app.doctor.findings import Area, Finding
from stream_app.setting_errors import misspelt
from stream_app.settings import Settings

AREA = Area("settings")


def check_settings(settings: Settings) -> Iterator[Finding]:
    """What may harm in production; a system that only this machine reaches may be as it likes."""
    public = not _is_local(settings.public_url)
    found = [
        *_unknown(),
        *_secrets(settings, public),
        *_endpoints(settings, public),
        *_times(settings),
    ]
    yield from found or [AREA.ok("values", "nothing unwise")]


def _unknown() -> Iterator[Finding]:
    for name, text in misspelt().items():
        yield AREA.warning(name, text, "see the list of settings in README.md, or remove the variable")


def _secrets(settings: Settings, public: bool) -> Iterator[Finding]:
    if settings.jwt_jwks_url is None and settings.uses_development_secret:
        what = "tokens are signed with the development secret, which everybody knows"
        advice = "set EXPORTER_JWT_SECRET to at least 32 random characters, or EXPORTER_JWT_JWKS_URL"
        yield (AREA.problem if public else AREA.warning)("EXPORTER_JWT_SECRET", what, advice)


def _endpoints(settings: Settings, public: bool) -> Iterator[Finding]:
    reached = settings.s3_public_endpoint or settings.s3_endpoint
    if public and _is_local(reached):
        yield AREA.problem(
            "EXPORTER_S3_PUBLIC_ENDPOINT",
            f"download links lead to {reached}, which users cannot reach",
            "set it to the object store's address as users reach it",
        )


def _times(settings: Settings) -> Iterator[Finding]:
    if settings.lease_seconds < 10:
        yield AREA.warning(
            "EXPORTER_LEASE_SECONDS",
            f"{settings.lease_seconds:.0f} s: a short pause of the database costs running exports",
            "set it to 10 or more",
        )
    if settings.user_slots > settings.worker_slots:
        yield AREA.warning(
            "EXPORTER_USER_SLOTS",
            "one user may take every slot of a worker",
            "set it to less than EXPORTER_WORKER_SLOTS",
        )
    if settings.download_url_seconds > 86_400 * settings.retention_days:
        yield AREA.warning(
            "EXPORTER_DOWNLOAD_URL_SECONDS",
            "download links outlive the files they lead to",
            "set it to less than EXPORTER_RETENTION_DAYS",
        )


def _is_local(url: str) -> bool:
    host = urlsplit(url if "://" in url else f"//{url}").hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
