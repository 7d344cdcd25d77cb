"""Subqueries of ids that run once."""

from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Select, Uuid, any_, func


def any_once(ids: Select[UUID]) -> Any:
    """Return ``ANY`` of the ids as an array, whose subquery runs once.

    PostgreSQL can run a subquery of ``IN`` for each row. Each run skips the rows that an earlier one locked,
    so that more rows than its limit are found.
    """
    return any_(func.array(ids.scalar_subquery(), type_=ARRAY(Uuid)))
