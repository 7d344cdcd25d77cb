"""Validates requests over HTTP: whether they are allowed, and whether they fit the dataset and its table."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4, uuid5

from pydantic_core import PydanticSerializationError

from api.auth.authenticator import User
from api.auth.callers import RequestClaims
from api.errors import Problem
from api.jobs.schemas import Order
from api.services import SOURCE, ApiServices
from stream_app.datasets.bundles import Bundle
from stream_app.datasets.caller import Caller
from stream_app.datasets.models import Dataset
from stream_app.datasets.rights import find_dataset
from stream_app.exports.bundles.requests import shown_member
from stream_app.exports.files.compression import compression_for
from stream_app.exports.format_options import refuse_foreign_options
from stream_app.exports.formats.base import Format
from stream_app.exports.queries.presentation import shown_rows
from stream_app.exports.queries.row_query import row_query
from stream_app.exports.queries.windows import with_window
from stream_app.exports.tables.rights import use_all_visible, use_visible
from stream_app.exports.tables.source_table import SourceTable
from stream_app.observability import tracing
from streaming_exporter.errors import Rejected, TooLarge, Unreadable
from streaming_exporter.events import Event, ExportRequest, decode, request_event
from streaming_exporter.outbox.entries import MAX_EVENT_BYTES

IDEMPOTENCY = UUID("6f0a5a0e-6f2c-4c3b-9a43-2f1c0f0b7a51")
"""Namespace of the ids of jobs of requests with an ``Idempotency-Key``."""


def dataset_for(services: ApiServices, user: User, name: str) -> Dataset:
    """Return the dataset ``name`` if it exists for ``user``.

    Raises:
        Rejected: there is no such dataset, or it is not for the user; both have the same text.
    """
    return find_dataset(services.datasets, name, Caller(user.id, user.roles))


def require_scope(user: User, order: Order) -> None:
    """Return if the user's roles allow the scope of the order.

    Raises:
        Problem: scope ``all`` without the role for it.
    """
    if order.scope == "all" and not user.can_export_all:
        raise Problem(
            403,
            "scope_not_allowed",
            "Scope all needs the role exports:all. Ask for that role, or use scope own",
            field="scope",
        )


def validated_event(
    services: ApiServices,
    user_id: str,
    order: Order,
    key: str | None = None,
    *,
    claims: RequestClaims,
) -> tuple[Event, ExportRequest]:
    """Return the request event of an order, and its data after validation.

    The role for scope ``all`` is not checked here: see :func:`require_scope`.

    Args:
        services: what the calls work with.
        user_id: whose export it is.
        order: the body of the call.
        key: the ``Idempotency-Key``.
        claims: the roles and claims that the rights of the request depend on.

    Raises:
        Rejected: the request is invalid or not allowed or too large, or its text cannot be encoded. The text
            names the field.
    """
    job_id = uuid4() if key is None else uuid5(IDEMPOTENCY, f"{len(user_id)}:{user_id}:{key}")
    for field in ("filters", "parameters"):
        _refuse_non_finite(field, getattr(order, field))
    data = {"user_id": user_id, **order.model_dump(mode="json", exclude_unset=True)}
    if claims:
        data["claims"] = claims
    event, request = event_of(services, data, job_id)
    if order.options is not None:
        given = (name for name in order.options.model_fields_set if getattr(order.options, name) is not None)
        refuse_foreign_options(given, services.formats[request.format])
    return event, request


def event_of(services: ApiServices, data: dict[str, Any], job_id: UUID) -> tuple[Event, ExportRequest]:
    """Return the request event of ``data``, and the data after validation.

    Raises:
        Rejected: the request is invalid or not allowed, or its text cannot be encoded. The text names the
            field.
    """
    try:
        request = services.validator.validate(data)
        event = request_event(
            request, job_id=job_id, source=SOURCE, traceparent=tracing.current_span().traceparent
        )
        encoded = event.encode()
        decode(encoded)  # of the encoding alone: consumers must be able to read it
    except (PydanticSerializationError, UnicodeError) as error:
        raise Rejected("a text in the body is not valid Unicode", code="invalid_text") from error
    except Unreadable as error:
        raise Rejected(str(error), code="invalid_text") from error
    refuse_large(encoded)
    return event, request


def refuse_large(encoded: bytes) -> None:
    """Refuse a request whose event is too large for Kafka. It would wait without end to be published.

    Raises:
        Rejected: the event has more than :data:`MAX_EVENT_BYTES`.
    """
    if len(encoded) > MAX_EVENT_BYTES:
        raise Rejected(
            f"the request has {len(encoded):,} bytes; allowed: {MAX_EVENT_BYTES:,}. Shorten its filters",
            code=TooLarge.code,
        )


def _refuse_non_finite(field: str, values: object) -> None:
    """Refuse NaN and infinity, also as numbers such as 1e400: the event would have null in their place.

    Raises:
        Rejected: there is one in ``values``.
    """
    try:
        json.dumps(values, allow_nan=False)
    except ValueError as error:
        raise Rejected(
            "NaN and infinity are not valid in JSON; use finite numbers", code="invalid_number", field=field
        ) from error


async def check_against_table(
    services: ApiServices, request: ExportRequest, *, window: Mapping[str, Any] | None = None
) -> None:
    """Check columns, filters and options now, so that the user gets errors at once.

    ``window`` is that of the schedule's run that takes place again.
    """
    file_format = services.formats[request.format]
    compression_for(request.options.compression, file_format)

    async def check_table(table: SourceTable) -> None:
        now = services.clock.now()

        def check() -> None:
            wanted = table.resolve(with_window(table, request, window), now)
            shown_rows(row_query(table, wanted), table.dataset, wanted.options, file_format)

        await asyncio.to_thread(check)  # a filter with many values takes long

    caller = Caller.of(request)
    # The datasets file can have changed since the request was validated.
    dataset = find_dataset(services.datasets, request.export_type, caller)
    if isinstance(dataset, Bundle):
        await _check_members(services, dataset, request, file_format, window)
    else:
        await use_visible(services.catalog, dataset, caller, check_table)


async def _check_members(
    services: ApiServices,
    bundle: Bundle,
    request: ExportRequest,
    file_format: Format,
    window: Mapping[str, Any] | None,
) -> None:
    """Check the request for each dataset of a bundle."""

    async def check_tables(tables: Sequence[SourceTable]) -> None:
        now = services.clock.now()

        def check() -> None:
            for member, table in zip(bundle.members, tables, strict=True):
                shown_member(bundle, member, table, request, file_format, now, window)

        await asyncio.to_thread(check)

    await use_all_visible(services.catalog, bundle.members, Caller.of(request), check_tables)
