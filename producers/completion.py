"""Completes names of datasets and formats, and ids of jobs, in shells; silent without the API."""

from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streaming_exporter.client import ExportClient

SECONDS = 3.0
"""How long a shell waits for the API."""

JOBS = 30
"""The newest jobs are offered, so many of them."""

Offers = list[tuple[str, str]]
"""What is offered, each with its description."""


def datasets(incomplete: str) -> Offers:
    """Return the datasets whose names begin with ``incomplete``."""
    found = _ask(lambda api: api.datasets()["datasets"])
    return [
        (one["name"], one.get("label") or one["description"])
        for one in found
        if one["name"].startswith(incomplete) and not one.get("error")
    ]


def formats(incomplete: str) -> Offers:
    """Return the formats whose names begin with ``incomplete``."""
    found = _ask(lambda api: api.datasets()["formats"])
    return [(one["name"], one["description"]) for one in found if one["name"].startswith(incomplete)]


def jobs(incomplete: str) -> Offers:
    """Return the newest jobs whose ids begin with ``incomplete``."""
    found = _ask(lambda api: api.call("GET", f"/exports/jobs?limit={JOBS}")["jobs"])
    return [
        (one["export_job_id"], f"{one['export_type']} {one['format']}, {one['status']}, {one['created_at']}")
        for one in found
        if one["export_job_id"].startswith(incomplete)
    ]


def _ask(question: "Callable[[ExportClient], list[dict[str, Any]]]") -> list[dict[str, Any]]:
    """Return the answer of the API, or nothing if there is none in time.

    Only the call counts: settings are read, the token is signed and modules are imported before it.
    """
    from producers import job_commands
    from stream_app.setting_errors import load_settings

    answers: list[list[dict[str, Any]]] = []
    try:
        api = job_commands.open_api(load_settings(), None, None, None, role=job_commands.OPERATE)
    except Exception:
        return []  # an error would appear in the middle of the line that the user types

    def ask() -> None:
        with suppress(Exception), api:
            answers.append(question(api))

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return answers[0] if answers else []
