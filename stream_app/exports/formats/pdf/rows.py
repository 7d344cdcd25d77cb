"""WrapCache rows, column by column, on their way to a page."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class WrappedRows:
    """Rows column by column; each cell has ``heights`` lines, and ``ends`` says what follows."""

    cells: list[list[str]]
    heights: list[int] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    shades: list[bool] = field(default_factory=list)

    @classmethod
    def of(cls, columns: int) -> "WrappedRows":
        return cls([[] for _ in range(columns)])

    def extend(self, more: "WrappedRows") -> None:
        for column, added in zip(self.cells, more.cells, strict=True):
            column.extend(added)
        self.heights.extend(more.heights)
        self.ends.extend(more.ends)
        self.shades.extend(more.shades)

    def slice(self, start: int, end: int) -> "WrappedRows":
        return WrappedRows(
            [column[start:end] for column in self.cells],
            self.heights[start:end],
            self.ends[start:end],
            self.shades[start:end],
        )
