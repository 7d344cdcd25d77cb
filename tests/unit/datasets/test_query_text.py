"""Queries and expressions of the datasets file: where their parameters are, and what is refused."""

from collections.abc import Collection
from time import process_time

import pytest
from pydantic import ValidationError

from stream_app.datasets.models import ColumnSettings, Dataset, Parameter, SessionValue
from stream_app.datasets.query_text import QueryTextError, check_expression, parse_query
from tests.rows import each_row

PLACES = {
    "a comparison": ("select :a", "select  <a> "),
    "a cast": ("select :a::text, 1::int", "select  <a> ::text, 1::int"),
    "without spaces": ("select x=:a+1", "select x= <a> +1"),
    "two places": ("select :a, :a", "select  <a> ,  <a> "),
    "a string": ("select ':b', :a", "select ':b',  <a> "),
    "a doubled quote": ("select 'it''s :b', :a", "select 'it''s :b',  <a> "),
    "a backslash at the end of a plain string": (r"select '\', :a", r"select '\',  <a> "),
    "an escape string": (r"select E'\':b', :a", r"select E'\':b',  <a> "),
    "an escape string on two lines": ("select e'x'\n  '\\':b', :a", "select e'x'\n  '\\':b',  <a> "),
    "a comment between its lines": (
        "select e'x' -- :b '\n '\\':b', :a",
        "select e'x' -- :b '\n '\\':b',  <a> ",
    ),
    "a string after a line that is none of it": (r"select e'x' '\', :a", r"select e'x' '\',  <a> "),
    "a string with Unicode escapes": (r"select U&'\0441:b\', :a", r"select U&'\0441:b\',  <a> "),
    "bits": ("select b'1', x':b', n':b', :a", "select b'1', x':b', n':b',  <a> "),
    "a name that ends as a prefix does": (r"select likee'\', :a", r"select likee'\',  <a> "),
    "a quoted name": ('select ":b""" || :a', 'select ":b""" ||  <a> '),
    "a dollar quote": ("select $$ :b ' $$, $t$ $$ :b $t$, :a", "select $$ :b ' $$, $t$ $$ :b $t$,  <a> "),
    "a name with dollars": ("select a$b$, :a, c$b$", "select a$b$,  <a> , c$b$"),
    "a comment": ("select -- :b '\n:a", "select -- :b '\n <a> "),
    "a comment in a comment": ("select /* :b /* ' */ :b */ :a", "select /* :b /* ' */ :b */  <a> "),
    "a comment after an operator": ("select 1 */* :b */:a", "select 1 */* :b */ <a> "),
    "a slice": ("select x[1:n], x[m:n], :a", "select x[1:n], x[m:n],  <a> "),
    "a slice without a lower bound": (
        "select x[:n], (y)[:n], z[1][:n], :a",
        "select x[:n], (y)[:n], z[1][:n],  <a> ",
    ),
    "a subscript": ("select x[:a]", "select x[ <a> ]"),
    "an upper bound": ("select x[1: :a]", "select x[1:  <a> ]"),
    "a call in a subscript": ("select x[f(:a):n]", "select x[f( <a> ):n]"),
    "an array": ("select ARRAY[:a, :a], array[[:a]]", "select ARRAY[ <a> ,  <a> ], array[[ <a> ]]"),
    "a named argument": ("select f(x := 1, y => :a)", "select f(x := 1, y =>  <a> )"),
    "numbers": ("select 1e5, .5, 1., 0x1F, 1_000, :a", "select 1e5, .5, 1., 0x1F, 1_000,  <a> "),
    "brackets": ("((select :a))", "((select  <a> ))"),
    "with": ("WITH x AS (SELECT 1) SELECT :a FROM x", "WITH x AS (SELECT 1) SELECT  <a>  FROM x"),
    "values": ("values (:a)", "values ( <a> )"),
    "letters of other scripts": ("select größe, :a", "select größe,  <a> "),
}


@each_row("case", PLACES)
def test_where_the_parameters_are(case: str) -> None:
    text, wanted = PLACES[case]
    assert parse_query(text, ["a"]).render({"a": "<a>"}) == wanted


REFUSED: dict[str, tuple[str, Collection[str], str]] = {
    "two statements": ("select 1; select 2", (), "line 1: .*single statement"),
    "a semicolon at the end": ("select 1;", (), "without ';'"),
    "an end of the subquery": ("select 1) as q; drop table t --", (), "'\\)' was never opened"),
    "an end of the subquery and a new bracket": ("select 1) as q, (select 2", (), "'\\)' was never opened"),
    "an open bracket": ("select (1", (), "'\\(' is never closed"),
    "crossed brackets": ("select (x[1)]", (), "'\\)' was never opened"),
    "an open string": ("select 'a", (), "quote ' is never closed"),
    "an open escape string": ("select e'a\\'", (), "never closed"),
    "an open escape string on its second line": ("select e'a'\n'b\\' , :x", ("x",), "never closed"),
    "an open name": ('select "a', (), "never closed"),
    "an open dollar quote": ("select $a$ $$", (), "never ends"),
    "an open comment": ("select 1 /* /* */", (), "never ends"),
    "a positional parameter": ("select $1", (), "parameters are written as :name"),
    "an undeclared parameter": ("select\n:b", ("a",), "line 2: .*'b' is not declared; allowed: a"),
    "an undeclared parameter beside a declared one": ("select :a, :ab", ("a",), "'ab' is not declared"),
    "an unused parameter": ("select ':a'", ("a",), "does not use the parameter 'a'"),
    "a change": ("delete from t", (), "must begin with SELECT"),
    "a hidden change": ("explain analyze delete from t", (), "must begin with SELECT"),
    "a lock": ("select 1 from t for\nupdate of t", (), "cannot lock rows"),
    "another lock": ("select 1 from t FOR NO KEY UPDATE", (), "cannot lock rows"),
    "nothing": ("-- select 1", (), "must begin with SELECT"),
    "a NUL character": ("select 1\0", (), "control character"),
    "a letter after a number": ("select 1a", (), "followed by a letter"),
    "a dollar after a number": ("select 1$a$ :b $a$", ("b",), "followed by a letter"),
    "a backslash": ("select \\ 1", (), "backslash"),
}


@each_row("after", ["", "\n", "\n and b = 1", "\n -- and\n", "\r\n--"])
@each_row("line", ["-" * 20_000, "-- " * 20_000, " \t--" * 20_000])
def test_a_long_comment_after_a_string_is_read_at_once(line: str, after: str) -> None:
    began = process_time()
    assert parse_query(f"select * from t where a = 'x' --{line}{after}").names == ()
    assert process_time() - began < 1


@each_row("case", REFUSED)
def test_what_is_refused_when_the_file_is_read(case: str) -> None:
    text, declared, reason = REFUSED[case]
    with pytest.raises(QueryTextError, match=reason):
        parse_query(text, declared)
    with pytest.raises(ValidationError, match="query: "):
        Dataset(name="q", query=text, parameters={name: Parameter() for name in declared})


@pytest.mark.parametrize(
    "mask", ["left(name, 1) || '.'", "case when a then b end", "(select ':x; ')", "x -- the end"]
)
def test_expressions_that_can_mask(mask: str) -> None:
    check_expression(mask)
    assert ColumnSettings(mask=mask).mask == mask


@each_row(
    ("mask", "reason"),
    [
        ("emial", "no mask 'emial'; allowed: email, last4, hash, null"),
        (" email ", "no mask"),
        ("NULL", "no mask"),
        ("a, b", "single expression"),
        ("a) from t; --", "never opened"),
        ("a; b", "single statement"),
        ("f(:x)", "cannot have parameters"),
        ("-- nothing", "empty"),
        ("left(a, 1", "never closed"),
    ],
)
def test_masks_that_are_refused_when_the_file_is_read(mask: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ColumnSettings(mask=mask)


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ({"type": "integer", "choices": [1, "x"]}, "parameters.p.choices: expected a whole number"),
        ({"type": "date", "default": "31.01.2026"}, "parameters.p: expected a date"),
        ({"choices": ["a"], "default": "b"}, "parameters.p: 'b' is not one of the choices; allowed: a"),
        ({"required": True, "default": "b"}, "remove one of them"),
        ({"type": "text", "default": 1}, "expected a text"),
        ({"type": "money"}, "literal_error"),
    ],
)
def test_parameters_that_are_refused_when_the_file_is_read(parameter: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Dataset.model_validate({"name": "q", "query": "select :p", "parameters": {"p": parameter}})


@pytest.mark.parametrize("name", ["search_path", "role", "row_security", "app.tenant'", "app.", ""])
def test_settings_of_a_session_that_are_refused_when_the_file_is_read(name: str) -> None:
    with pytest.raises(ValidationError, match="its name must have a dot"):
        Dataset(name="t", table="t", session={name: SessionValue(claim="org")})


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["streaming_exporter.hash_keys"], "belong to the service"),
        (["Streaming_Exporter.Hash_Keys"], "belong to the service"),
        (["app.tenant", "App.Tenant"], "differ only in capital letters"),
    ],
)
def test_settings_that_would_replace_others_are_refused(names: list[str], reason: str) -> None:
    """PostgreSQL does not tell capital letters in the names of settings from small ones."""
    with pytest.raises(ValidationError, match=reason):
        Dataset(name="t", table="t", session={name: SessionValue(claim="org") for name in names})
