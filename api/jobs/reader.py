"""Reads jobs for clients that poll: calls at the same time share one query."""

import asyncio
from typing import Any, cast
from uuid import UUID

import asyncpg
from pydantic_core import from_json, to_json

from stream_app.db.engine import connect_to, outages_are_retryable
from stream_app.db.statements import Record
from stream_app.jobs.models import ExportJob
from stream_app.settings import Settings

CONNECTIONS = 2
QUERY_SECONDS = 30

_COLUMNS = ", ".join(f'"{column.name}"' for column in ExportJob.__table__.columns)
_READ = f"SELECT {_COLUMNS} FROM export_jobs WHERE id = ANY($1)"


class JobReader:
    """Reads single jobs. Calls that come while queries run share the next query.

    A thousand clients that poll need few queries and two connections. A single client does not wait.
    """

    def __init__(self, settings: Settings, *, application: str) -> None:
        self._settings = settings
        self._application = application
        self._pool: asyncpg.Pool[Record] | None = None
        self._wanted: dict[UUID, asyncio.Future[Record | None]] = {}
        self._free = CONNECTIONS
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, job_id: UUID, *, user_id: str | None = None) -> ExportJob | None:
        """Return the job; ``None`` if it does not exist or does not belong to ``user_id``.

        Raises:
            Retryable: the database is unavailable.
        """
        reading = self._wanted.get(job_id)
        if reading is None:
            reading = self._wanted[job_id] = asyncio.get_running_loop().create_future()
            if self._free:
                self._free -= 1
                task = asyncio.create_task(self._read())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        with outages_are_retryable():
            job = cast("ExportJob | None", await asyncio.shield(reading))
        return None if job is None or (user_id is not None and job.user_id != user_id) else job

    async def close(self) -> None:
        """Close the connections."""
        for task in self._tasks:
            task.cancel()
        if self._pool is not None:
            self._pool.terminate()

    async def _read(self) -> None:
        """Read the waiting jobs until none is left."""
        try:
            while self._wanted:
                wanted, self._wanted = self._wanted, {}
                try:
                    rows = {row["id"]: row for row in await self._fetch(list(wanted))}
                except Exception as error:
                    for reading in wanted.values():
                        reading.set_exception(error)
                        reading.exception()  # marks it as retrieved: the caller is possibly gone
                    continue
                for job_id, reading in wanted.items():
                    reading.set_result(rows.get(job_id))
        finally:
            self._free += 1

    async def _connect(self, *_: object, **options: Any) -> "asyncpg.Connection[Record]":
        """Connect with the current URL, because its password can change."""
        connection = await connect_to(self._settings, application=self._application, **options)
        return cast("asyncpg.Connection[Record]", connection)

    async def _fetch(self, ids: list[UUID]) -> list[Record]:
        if self._pool is None:
            self._pool = asyncpg.create_pool(
                connect=self._connect,
                min_size=0,
                max_size=CONNECTIONS,
                command_timeout=QUERY_SECONDS,
                record_class=Record,
                init=_decode_json,
                reset=_no_reset,
            )
        pool = await self._pool
        rows: list[Record] = await pool.fetch(_READ, ids)
        return rows


async def _decode_json(connection: "asyncpg.Connection[Record]") -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=to_json, decoder=from_json)


async def _no_reset(_: "asyncpg.Connection[Record]") -> None:
    """Do not reset a session between two queries, because it only reads."""
