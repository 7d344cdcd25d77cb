"""Probes: is this process alive, and can it do its work."""

import asyncio
from collections.abc import Awaitable

import structlog
from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from api.services import Container
from stream_app.errors import ExporterError

router = APIRouter(tags=["probes"])
log = structlog.get_logger(__name__)

PATIENCE = 5.0


class Health(BaseModel):
    """Each part, and whether it answers: ``ok`` or ``unavailable``; why is in the log."""

    status: str
    parts: dict[str, str] = {}


@router.get(
    "/healthz", operation_id="getHealth", summary="Whether the process is alive", response_model=Health
)
async def healthz() -> Health:
    """Asks nobody else, so that an outage elsewhere restarts nothing here."""
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Whether the parts that the API needs answer",
    response_model=Health,
    responses={503: {"model": Health, "description": "A part does not answer"}},
)
async def readyz(services: Container, response: Response) -> Health:
    """The state database with its tables, Kafka with its topics, the object store."""
    checks = {
        "database": services.records.check(),
        "kafka": services.publisher.check(),
        "object_store": asyncio.to_thread(services.storage.check),
    }
    answers = await asyncio.gather(*(_answers(name, check) for name, check in checks.items()))
    parts = {name: "ok" if fine else "unavailable" for name, fine in zip(checks, answers, strict=True)}
    if not all(answers):
        response.status_code = 503
    return Health(status="ok" if all(answers) else "unavailable", parts=parts)


async def _answers(name: str, check: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(PATIENCE):
            await check
    except (ExporterError, SQLAlchemyError, TimeoutError) as error:
        log.warning("part.unavailable", part=name, error=repr(error))
        return False
    return True
