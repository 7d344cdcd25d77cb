"""The description of a dataset. Pure; columns and types are the database's to tell."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=63)]


class Dataset(BaseModel):
    """A table or view that may be exported.

    ``table`` is ``name`` or ``schema.name``. ``owner`` is the column that scope ``own`` compares with the
    user's id; ``time`` the one that windows and the default order use; ``columns`` limits and orders what
    is shown (default: all); ``order`` replaces the default order, which is ``time`` and then the primary key
    (an empty list leaves the rows as they come, the fastest for a huge table without a fitting index).
    ``template`` is an Excel workbook that ``excel`` fills instead of making its own; ``template_header`` is
    the row of its captions, for templates that do not show it by themselves.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
    table: Annotated[str, StringConstraints(min_length=1, max_length=127)]
    description: str = ""
    owner: Identifier | None = None
    time: Identifier | None = None
    columns: tuple[Identifier, ...] | None = Field(None, min_length=1)
    order: tuple[Identifier, ...] | None = None
    template: Path | None = None
    template_header: Annotated[int, Field(ge=1, le=1_048_575)] | None = None
