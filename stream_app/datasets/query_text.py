"""Finds the parameters of a dataset's query, and refuses text that is not one SELECT or one expression. Pure.

PostgreSQL's own rules decide where a string, a quoted identifier or a comment ends: parameters in them are
plain text. The rules hold for servers with ``standard_conforming_strings``, which each transaction on a
source sets. (https://www.postgresql.org/docs/current/sql-syntax-lexical.html)
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

FIRST_WORDS = ("select", "with", "values", "table")
"""The words that a query can begin with, apart from brackets."""

LOCKS = (("for", "update"), ("for", "share"), ("for", "no", "key"), ("for", "key", "share"))
"""The words that lock rows, which a read-only transaction cannot do."""

_NAME = r"[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]*"
_TAG = r"[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*"
# Strings on several lines are one string: spaces and comments with a line break are between the parts.
# A comment gives nothing back: dashes could be divided into comments in very many ways.
_CONTINUED = r"(?:[ \t]|--[^\n\r]*+)*[\n\r](?:[ \t\n\r]|--[^\n\r]*[\n\r])*"
_PLAIN = r"'(?:[^']|'')*'"
_ESCAPED = r"'(?:[^'\\]|''|\\.)*'"

_TOKEN = re.compile(
    rf"""
    (?P<space>[ \t\n\r]+)
    | (?P<comment>--[^\n\r]*|/\*)
    | (?P<text>[eE]{_ESCAPED}(?:{_CONTINUED}{_ESCAPED})*
        | (?:[uU]&|[bBxXnN])?{_PLAIN}(?:{_CONTINUED}{_PLAIN})*)
    | (?P<quoted>(?:[uU]&)?"(?:[^"]|"")*")
    | (?P<name>{_NAME})
    | (?P<dollar>\$(?:{_TAG})?\$)
    | (?P<number>0[xX][0-9A-Fa-f_]+ | 0[oO][0-7_]+ | 0[bB][01_]+
        | (?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9_]+)?)
    | (?P<cast>::|:=)
    | (?P<parameter>:{_NAME})
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_CONTINUATION = re.compile(f"{_CONTINUED}'")
_COMMENT_PART = re.compile(r"/\*|\*/")
_AFTER_NUMBER = re.compile(r"[A-Za-z0-9_$\u0080-\U0010ffff]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BRACKETS = {")": "(", "]": "["}


class QueryTextError(ValueError):
    """The text is not one query, or not one expression. The message names the line and the reason."""


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """A query with places for the values of its parameters.

    Attributes:
        texts: SQL before, between and after the places.
        names: the parameter of each place; a parameter can have several.
    """

    texts: tuple[str, ...]
    names: tuple[str, ...] = ()

    def render(self, values: Mapping[str, str]) -> str:
        """Return the query with ``values``, which are SQL expressions, at the places of its parameters."""
        parts = [self.texts[0]]
        for name, text in zip(self.names, self.texts[1:], strict=True):
            parts += f" {values[name]} ", text
        return "".join(parts)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


def parse_query(text: str, declared: Collection[str] = ()) -> ParsedQuery:
    """Return the query with the places of its parameters.

    Args:
        text: the query, with parameters as ``:name``.
        declared: the names that parameters can have; each of them must be used.

    Raises:
        QueryTextError: it is not a single SELECT, or a parameter is not declared, or is not used.
    """
    texts, names = [""], []
    words: list[str] = []
    for token in _tokens(text, declared):
        if token.kind == "parameter":
            names.append(_declared(token, text, declared))
            texts.append("")
            words.append("")
            continue
        if token.kind not in ("space", "comment"):
            words.append(token.text.lower() if token.kind == "name" else token.text)
            if any(tuple(words[-len(lock) :]) == lock for lock in LOCKS):
                raise _error("it cannot lock rows; remove FOR UPDATE, FOR SHARE and the like", token, text)
        # A comment stays: without it two strings on two lines could become one.
        texts[-1] += token.text
    first = next((word for word in words if word != "("), "")
    if first not in FIRST_WORDS:
        raise QueryTextError(f"it must begin with SELECT, WITH, VALUES or TABLE, not with {first!r:.40}")
    if unused := [name for name in declared if name not in names]:
        raise QueryTextError(f"it does not use the parameter {unused[0]!r}; write :{unused[0]} or remove it")
    return ParsedQuery(tuple(texts), tuple(names))


def check_expression(text: str) -> None:
    """Check that ``text`` can be one SQL expression. PostgreSQL checks the rest.

    Raises:
        QueryTextError: it is empty, has several expressions or statements, or has parameters.
    """
    depth = count = 0
    for token in _tokens(text, ()):
        if token.kind == "parameter":
            raise _error(
                f"an expression of a column cannot have parameters such as {token.text}", token, text
            )
        if token.kind in ("space", "comment"):
            continue
        count += 1
        depth += (token.text in ("(", "[")) - (token.text in (")", "]"))
        if depth == 0 and token.text == ",":
            raise _error("it must be a single expression; the comma begins another one", token, text)
    if not count:
        raise QueryTextError("it is empty")


def _declared(token: _Token, text: str, declared: Collection[str]) -> str:
    name = token.text[1:]
    if name not in declared:
        allowed = ", ".join(declared) or "no parameter is declared"
        raise _error(f"the parameter {name!r} is not declared; allowed: {allowed}", token, text)
    return name


def _tokens(text: str, declared: Collection[str]) -> Iterator[_Token]:
    """Yield the tokens of ``text``, with all spaces and comments.

    Within the brackets of a subscript, a colon after a value is that of an array slice, such as ``a[1:n]``.
    """
    if found := _CONTROL.search(text):
        raise QueryTextError(f"it has the control character {found[0]!r}, which SQL does not need")
    if found := re.search(r"[\ud800-\udfff]", text):
        raise QueryTextError("it has half of a surrogate pair, which is no character")
    open_brackets: list[tuple[str, bool]] = []  # with whether they are those of a subscript
    before = _Token("", "", 0)  # the last token that is neither a space nor a comment
    position = 0
    while position < len(text):
        token = _token(text, position)
        position += len(token.text)
        if token.kind == "parameter" and open_brackets[-1:] == [("[", True)]:
            undeclared = token.text[1:] not in declared
            if _is_value(before) or (undeclared and before.text == "["):
                token = _Token("other", ":", token.position)
                position = token.position + 1
        if token.kind == "other":
            _follow_brackets(token, text, open_brackets, before)
        yield token
        if token.kind not in ("space", "comment"):
            before = token
    if open_brackets:
        raise QueryTextError(f"a bracket {open_brackets[-1][0]!r} is never closed")


def _token(text: str, position: int) -> _Token:
    found = _TOKEN.match(text, position)
    kind = found.lastgroup if found is not None else None
    if found is None or kind is None:
        raise QueryTextError("it cannot be read")  # the last group of the pattern matches every character
    token = _Token(kind, found[0], position)
    if token.text == "/*":
        return _Token(kind, text[position : _end_of_comment(token, text)], position)
    if kind == "dollar":
        end = text.find(token.text, found.end())
        if end < 0:
            raise _error(f"the string {token.text} never ends", token, text)
        return _Token("text", text[position : end + len(token.text)], position)
    if _is_unclosed(token, text):
        raise _error("the string is never closed", token, text)
    if kind == "number" and _AFTER_NUMBER.match(text, found.end()):
        raise _error(f"{token.text!r:.40} is followed by a letter", token, text)
    return token


def _is_unclosed(token: _Token, text: str) -> bool:
    """Return whether an escape string begins here, or continues, that never ends."""
    end = token.position + len(token.text)
    if token.kind == "name":
        return token.text in "eE" and text.startswith("'", end)
    is_escaped = token.kind == "text" and token.text[0] in "eE"
    return is_escaped and _CONTINUATION.match(text, end) is not None


def _end_of_comment(token: _Token, text: str) -> int:
    """Return the position after a comment, which can have other comments in it."""
    depth = 0
    for found in _COMMENT_PART.finditer(text, token.position):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    raise _error("a comment /* never ends", token, text)


def _follow_brackets(token: _Token, text: str, open_brackets: list[tuple[str, bool]], before: _Token) -> None:
    match token.text:
        case ";":
            raise _error("it must be a single statement without ';'", token, text)
        case "'" | '"':
            raise _error(f"the quote {token.text} is never closed", token, text)
        case "$":
            raise _error("'$' has no meaning here; parameters are written as :name", token, text)
        case "\\":
            raise _error("a backslash has no meaning here", token, text)
        case "(" | "[":
            is_subscript = token.text == "[" and _is_value(before) and before.text.lower() != "array"
            open_brackets.append((token.text, is_subscript))
        case ")" | "]":
            if not open_brackets or open_brackets.pop()[0] != _BRACKETS[token.text]:
                raise _error(f"the bracket {token.text!r} was never opened", token, text)


def _is_value(token: _Token) -> bool:
    """Return whether a value can end with ``token``."""
    return token.kind in ("name", "quoted", "text", "number", "parameter") or token.text in (")", "]")


def _error(reason: str, token: _Token, text: str) -> QueryTextError:
    return QueryTextError(f"line {text.count(chr(10), 0, token.position) + 1}: {reason}")
