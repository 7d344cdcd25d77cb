"""The plan of a query by PostgreSQL's planner. Pure."""

import re
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
        node_types: the types of all nodes, such as ``Seq Scan``.
        index_conditions: the conditions by which indexes are searched.
    """

    rows: int
    width: int
    node_types: frozenset[str]
    index_conditions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read the result of ``EXPLAIN (FORMAT JSON)``."""
        top = from_json(text)[0]["Plan"]
        nodes = list(_nodes(top))
        return cls(
            int(top["Plan Rows"]),
            int(top["Plan Width"]),
            frozenset(node["Node Type"] for node in nodes),
            tuple(node["Index Cond"] for node in nodes if "Index Cond" in node),
        )

    def searches(self, column: str) -> bool:
        """Return whether an index is searched by values of ``column``."""
        name = re.compile(rf"(?<!\w){re.escape(column)}(?!\w)")
        return any(name.search(condition) for condition in self.index_conditions)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)
