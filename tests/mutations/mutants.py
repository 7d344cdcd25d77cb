"""Small changes of a module's meaning, one at a time, which tests must notice. Does no I/O."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.BitOr: "&",
    ast.BitAnd: "|",
}


@dataclass(frozen=True)
class Mutant:
    """A source with the text of one node replaced. ``line`` is the place, ``what`` describes the change."""

    line: int
    what: str
    source: str


def mutants(source: str) -> list[Mutant]:
    """Return all possible changes of a source, in the order of the text."""
    tree = ast.parse(source)
    found = [
        Mutant(node.lineno, f"{old} -> {new}", changed)
        for node in _looked_at(tree)
        for new in _replacements(node)
        if (old := ast.get_source_segment(source, node) or "") != new
        and (changed := _replaced(source, node, new)) is not None
    ]
    return sorted(found, key=lambda mutant: mutant.line)


def _looked_at(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Yield all nodes except annotations, decorators, formatted texts, and keywords of ``Field``."""
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Call) and _name(node.func) == "Field"):
        return
    if isinstance(node, ast.expr | ast.stmt):
        yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _looked_at(child)


def _replacements(node: ast.expr | ast.stmt) -> Iterator[str]:
    """Return the replacements of a node."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            yield f"({ast.unparse(left)} {COMPARISONS[type(op)]} {ast.unparse(right)})"
        case ast.BoolOp(op=op, values=values):
            word = " or " if isinstance(op, ast.And) else " and "
            yield "(" + word.join(f"({ast.unparse(value)})" for value in values) + ")"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            if not any(map(_is_text, (left, right))):
                yield f"({ast.unparse(left)} {ARITHMETIC[type(op)]} {ast.unparse(right)})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield f"({ast.unparse(operand)})"
        case ast.Constant(value=bool() as value):
            yield str(not value)
        case ast.Constant(value=int() as value):
            yield str(value + 1)
        case ast.IfExp(body=body, orelse=orelse):
            yield f"({ast.unparse(body)})"
            yield f"({ast.unparse(orelse)})"
        case ast.If(test=test):
            yield _with_test(node, ast.UnaryOp(ast.Not(), test))
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield "return None"
        case ast.Raise():
            yield "pass"
        case ast.Break():
            yield "continue"
        case ast.Continue():
            yield "break"


def _with_test(node: ast.If, test: ast.expr) -> str:
    changed = ast.If(test=test, body=node.body, orelse=node.orelse)
    return ast.unparse(ast.fix_missing_locations(changed)).replace("\n", "\n" + " " * node.col_offset)


def _is_text(value: ast.expr) -> bool:
    """Return whether the node is a literal text. Texts are only added."""
    return isinstance(value, ast.JoinedStr) or (
        isinstance(value, ast.Constant) and isinstance(value.value, str)
    )


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _replaced(source: str, node: ast.expr | ast.stmt, new: str) -> str | None:
    """Return the source with the node's text replaced; ``None`` if the result is not valid Python."""
    lines = source.encode().splitlines(keepends=True)
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: (node.end_lineno or 0) - 1])) + (node.end_col_offset or 0)
    changed = (source.encode()[:start] + new.encode() + source.encode()[end:]).decode()
    try:
        ast.parse(changed)
    except SyntaxError:
        return None
    return changed
