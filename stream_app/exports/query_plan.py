"""What PostgreSQL's planner says about a query. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from pydantic_core import from_json


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """The plan of a query.

    Attributes:
        rows: the number of rows that the planner expects.
        width: average bytes of a row, as PostgreSQL stores it.
        cost: total cost in the planner's units.
        node_types: the types of all nodes, such as ``Seq Scan``.
    """

    rows: int
    width: int
    cost: float
    node_types: frozenset[str]

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read the result of ``EXPLAIN (FORMAT JSON)``."""
        top = from_json(text)[0]["Plan"]
        return cls(
            int(top["Plan Rows"]), int(top["Plan Width"]), float(top["Total Cost"]), frozenset(_types(top))
        )


def _types(node: dict[str, Any]) -> Iterator[str]:
    yield node["Node Type"]
    for below in node.get("Plans", ()):
        yield from _types(below)
