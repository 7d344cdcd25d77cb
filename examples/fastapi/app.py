"""A shop that closes months: the change and the request for its export are one transaction (outbox)."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse
from sqlalchemy import String
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from streaming_exporter import AsyncExportClient, ExportRequest
from streaming_exporter.errors import ApiError
from streaming_exporter.kafka_settings import KafkaSettings
from streaming_exporter.outbox.relay import Relay
from streaming_exporter.outbox.sqlalchemy import request_export
from streaming_exporter.outbox.sqlalchemy_store import SqlAlchemyStore
from streaming_exporter.outbox.tables import metadata as outbox_tables

USER = os.environ.get("SHOP_USER", "shop")
"""The user whose exports these are; ``EXPORTER_TOKEN`` is a token of this user."""


class Base(DeclarativeBase):
    """The shop's own tables."""


class ClosedMonth(Base):
    """A month that has been closed, and the job that exports it."""

    __tablename__ = "closed_months"

    month: Mapped[str] = mapped_column(String(7), primary_key=True)
    job_id: Mapped[UUID]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Create the tables, run the relay, and open the client of the API."""
    engine = create_async_engine(os.environ["SHOP_DATABASE_URL"])
    async with engine.begin() as connection:  # in production: a migration of Alembic
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(outbox_tables.create_all)
    app.state.sessions = async_sessionmaker(engine)
    stop = asyncio.Event()
    # Also possible: a process of its own, `python -m streaming_exporter.outbox relay`.
    store = SqlAlchemyStore(engine)
    relay = asyncio.create_task(Relay(store, KafkaSettings.from_environment()).run(stop))
    url = os.environ.get("EXPORTER_PUBLIC_URL", "http://127.0.0.1:8000")
    async with AsyncExportClient(url, os.environ["EXPORTER_TOKEN"]) as app.state.exports:
        yield
    stop.set()
    await relay
    await store.close()


app = FastAPI(lifespan=lifespan)


async def begin(request: Request) -> AsyncIterator[AsyncSession]:
    """Open a session whose transaction is committed when the call succeeds."""
    async with request.app.state.sessions.begin() as session:
        yield session


# The scope makes the commit part of the call, so a failed commit is a failed call.
Session = Annotated[AsyncSession, Depends(begin, scope="function")]


def exports(request: Request) -> AsyncExportClient:
    """Return the client of the API."""
    client: AsyncExportClient = request.app.state.exports
    return client


Exports = Annotated[AsyncExportClient, Depends(exports)]


@app.post("/months/{month}:close", status_code=202)
async def close_month(month: str, session: Session) -> dict[str, str]:
    """Close a month and request its export; if the transaction is rolled back, nothing is requested."""
    try:
        first = date.fromisoformat(f"{month}-01")
    except ValueError as error:
        raise HTTPException(422, "expected a month such as 2026-10") from error
    if (closed := await session.get(ClosedMonth, month)) is not None:
        return {"job_id": str(closed.job_id)}
    end = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    request = ExportRequest(
        user_id=USER,
        export_type="ledger",
        format="excel",
        filters={"created_at": {"gte": str(first), "lt": str(end)}},
    )
    job_id = request_export(session, request, source="/examples/fastapi")
    session.add(ClosedMonth(month=month, job_id=job_id))
    return {"job_id": str(job_id)}


@app.get("/exports/{job_id}")
async def status(job_id: UUID, client: Exports) -> dict[str, str]:
    """Return the status of an export. A job that the service does not know yet is `requested`."""
    job = await client.job(job_id)
    return {"status": "requested" if job is None else job.status}


@app.get("/exports/{job_id}/file")
async def file(job_id: UUID, client: Exports) -> RedirectResponse:
    """Send the browser to a fresh link of the object store."""
    try:
        return RedirectResponse(await client.link(job_id))
    except ApiError as error:
        # A foreign answer is not one of the API: a proxy or a page for signing in is in front of it.
        status = 502 if error.is_foreign else error.status or 503
        raise HTTPException(status, str(error)) from error
