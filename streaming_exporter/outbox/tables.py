"""The tables of the outbox for SQLAlchemy; needs the extra ``sqlalchemy``.

Django's migrations make the same tables, so one relay works with both.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Integer, String, Text, Uuid, create_mock_engine, func
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from streaming_exporter.outbox.entries import LEASE_TABLE, TABLE


class OutboxBase(DeclarativeBase):
    """The base of the tables of the outbox, with a ``metadata`` of its own."""


class OutboxEvent(OutboxBase):
    """An event that waits to be published; the relay deletes it once Kafka has it."""

    __tablename__ = TABLE

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(Uuid)
    type: Mapped[str] = mapped_column(String(100))
    payload: Mapped[str] = mapped_column(Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb"))
    size: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    refusal: Mapped[str | None] = mapped_column(Text)
    """Why Kafka refused the event for good. The relay leaves such entries alone."""


class OutboxLease(OutboxBase):
    """The relay that publishes now; a single row."""

    __tablename__ = LEASE_TABLE

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    owner: Mapped[str | None] = mapped_column(String(200))
    version: Mapped[int] = mapped_column(BigInteger)


metadata = OutboxBase.metadata
"""Both tables, for ``metadata.create_all`` and for the ``target_metadata`` of Alembic."""


def ddl(dialect: str = "postgresql") -> str:
    """Return the statements that create the tables, for a dialect of SQLAlchemy such as ``mysql``."""
    statements: list[str] = []

    def write(statement: object, *_: object, **__: object) -> None:
        compiled = str(statement.compile(dialect=engine.dialect))  # type: ignore[attr-defined]
        statements.append(
            "\n".join(line.rstrip().replace("\t", "  ") for line in compiled.strip().split("\n"))
        )

    engine = create_mock_engine(f"{dialect}://", write)
    metadata.create_all(engine, checkfirst=False)
    return ";\n".join(statements) + ";\n"
