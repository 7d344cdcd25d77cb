"""The tables of the outbox: deliveries, hosts under back-off, suppressed and unsubscribed addresses."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Index, Integer, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from stream_app.jobs.models import Base


class Channel(StrEnum):
    """The way a delivery is sent."""

    MAIL = "mail"
    WEBHOOK = "webhook"
    SLACK = "slack"
    TEAMS = "teams"
    DESTINATION = "destination"


READ_BY_PEOPLE = frozenset({Channel.MAIL, Channel.SLACK, Channel.TEAMS})
"""Channels whose receivers cannot drop a repetition. What can have arrived over them is not sent again."""


class DeliveryStatus(StrEnum):
    """The state of a delivery::

    pending ──► sending ──► sent, failed, skipped
       ▲───────────┘ │ (retry)
                     └──► ambiguous
    """

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    SKIPPED = "skipped"
    AMBIGUOUS = "ambiguous"
    """It is not known whether it arrived. It is sent again only on request."""


class Delivery(Base):
    """One mail, chat message or webhook call about one job to one address, or its files to one destination.

    ``attempts`` counts the claims and fences off older ones. ``address`` is a mail address, the address of a
    chat (:mod:`stream_app.chat_addresses`), a URL or the name of a destination.
    ``event`` is the final status of the job. ``topic`` is what the recipient can unsubscribe from:
    ``schedule:<id>``, or ``user:<id>`` for other requests of the user. ``progress`` is
    what a delivery to a destination has done. There is no foreign key. A delivery is
    kept as long as its job.
    """

    __tablename__ = "deliveries"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    job_id: Mapped[UUID]
    channel: Mapped[str]
    address: Mapped[str]
    event: Mapped[str]
    topic: Mapped[str]
    user_id: Mapped[str] = mapped_column(server_default="")
    """The user of the job."""
    host: Mapped[str] = mapped_column(server_default="")
    """Host and port of a chat or a webhook in lower case, or ``destination:`` and a name.

    It is empty for mails, which all go to one server.
    """
    status: Mapped[str] = mapped_column(server_default=DeliveryStatus.PENDING)
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    not_before: Mapped[datetime] = mapped_column(server_default=func.now())
    give_up_at: Mapped[datetime]
    worker: Mapped[str | None]
    """The name of the last claim: that of its worker, and what distinguishes the claims of a worker."""
    lease_until: Mapped[datetime | None]
    reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    progress: Mapped[Any] = mapped_column(nullable=True)

    __table_args__ = (
        UniqueConstraint("job_id", "channel", "address", name="deliveries_once"),
        Index("deliveries_due", "channel", "not_before", postgresql_where=text("status = 'pending'")),
        Index(
            "deliveries_in_turn",
            "channel",
            "user_id",
            "host",
            "not_before",
            postgresql_where=text("status = 'pending'"),
        ),
        Index("deliveries_mails", "user_id", "created_at", postgresql_where=text("channel = 'mail'")),
        Index("deliveries_address", func.lower(text("address"))),
        Index("deliveries_sending", "lease_until", postgresql_where=text("status = 'sending'")),
        Index(
            "deliveries_lost",
            "status",
            "finished_at",
            postgresql_where=text("status IN ('failed', 'ambiguous')"),
        ),
    )


class ReceiverHost(Base):
    """A host of chats or webhooks that did not answer. Nothing is sent to it before ``not_before``."""

    __tablename__ = "receiver_hosts"

    host: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int] = mapped_column(Integer)
    not_before: Mapped[datetime]


class SuppressedAddress(Base):
    """A mail address, in lower case, that its server has refused permanently."""

    __tablename__ = "suppressed_addresses"

    address: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Unsubscription(Base):
    """A mail address, in lower case, that gets no more mails about ``topic``: a schedule or a user."""

    __tablename__ = "unsubscriptions"

    address: Mapped[str] = mapped_column(primary_key=True)
    topic: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
