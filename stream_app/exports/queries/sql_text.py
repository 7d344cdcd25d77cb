"""Renders statements on the source as text with their values, because COPY accepts no parameters. Pure.

Most exports have a statement of a form that was rendered before, with other values. SQLAlchemy computes a key
of the form, and lists the values beside it. So the text of a form is rendered once, with a place for each
value, and each statement of that form puts its own values there.
"""

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, ClauseElement, ColumnElement, Select, String, Text
from sqlalchemy.dialects.postgresql.asyncpg import PGCompiler_asyncpg, PGDialect_asyncpg
from sqlalchemy.sql.cache_key import CacheKey
from sqlalchemy.util import LRUCache

FORMS = 500
"""How many forms are kept."""

MAX_VALUES = 100
"""A form with more values is not kept: it is large, and another request seldom has it."""

DIALECT = PGDialect_asyncpg()  # type: ignore[no-untyped-call]


class _PlaceCompiler(PGCompiler_asyncpg):
    """Writes a place for each value that is a text. No statement has a NUL character, so none has a place."""

    def render_literal_bindparam(self, bindparam: BindParameter[Any], *arguments: Any, **options: Any) -> str:
        if arguments or type(bindparam.type) not in (String, Text) or not isinstance(bindparam.value, str):
            raise _NoForm
        return f"\0{bindparam.key}\0"


class _PlaceDialect(PGDialect_asyncpg):
    statement_compiler = _PlaceCompiler
    supports_statement_cache = True


class _NoForm(Exception):
    """A statement has a value that is no text."""


@dataclass(frozen=True, slots=True)
class _Form:
    """The text of all statements with one key: ``pieces``, and between them the values with ``places``."""

    pieces: tuple[str, ...]
    places: tuple[int, ...]

    def text(self, values: list[str]) -> str:
        parts = [self.pieces[0]]
        for place, piece in zip(self.places, self.pieces[1:], strict=True):
            parts += (quoted(values[place]), piece)
        return "".join(parts)


_PLACES = _PlaceDialect()  # type: ignore[no-untyped-call]
_PLACE = re.compile("\0([^\0]*)\0")
_forms: LRUCache[Any, _Form | None] = LRUCache(FORMS)


def quoted(value: str) -> str:
    """Return a text as a constant of SQL, as SQLAlchemy writes it: with doubled quotes.

    That is safe with ``standard_conforming_strings = on``, which each transaction on the source sets.
    """
    return "'" + value.replace("'", "''") + "'"


def render(statement: Select[Any]) -> str:
    """Return the statement as text with its values."""
    key = statement._generate_cache_key()
    if key is None or len(key.bindparams) > MAX_VALUES:
        return rendered(statement)
    form = _forms.get(key.key, _MISSING)
    if form is _MISSING:
        form = _forms[key.key] = _form_of(statement, key)
    return rendered(statement) if form is None else form.text([str(item.value) for item in key.bindparams])


_MISSING: Any = object()


def _form_of(statement: Select[Any], key: CacheKey) -> _Form | None:
    """Return the form of a statement, or ``None`` if it has values other than texts."""
    try:
        text = str(statement.compile(dialect=_PLACES, compile_kwargs={"literal_binds": True}))
    except _NoForm:
        return None
    *pieces, last = _PLACE.split(text)
    places = {item.key: number for number, item in enumerate(key.bindparams)}
    if not places.keys() >= set(pieces[1::2]):
        return None
    return _Form((*pieces[::2], last), tuple(places[name] for name in pieces[1::2]))


def render_value(value: ColumnElement[Any]) -> str:
    """Return one value as text, as :func:`render` does."""
    return rendered(value)


def rendered(element: ClauseElement) -> str:
    """Return an element as text by SQLAlchemy alone."""
    return str(element.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True}))
