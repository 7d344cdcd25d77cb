"""Which whole numbers are identifiers: their digits are not grouped."""

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.identifiers import is_identifier
from tests.rows import each_row

IDENTIFIERS = [
    "id", "ID", "customer_id", "customerId", "userID", "order number", "order_no", "Rechnungsnummer",
    "invoice_number", "fiscal_year", "Geschäftsjahr", "zip", "postcode", "phone", "key2", "port", "code",
]  # fmt: skip
AMOUNTS = [
    "total",
    "quantity",
    "paid",
    "valid",
    "id_count",
    "grid",
    "size_bytes",
    "n",
    "rows",
    "report",
    "",
    "1",
]


@each_row("name", IDENTIFIERS)
def test_names_of_identifiers(name: str) -> None:
    """C21: no separators in 1234567 where it names a customer."""
    assert is_identifier(Column(name, "bigint", "int8", Kind.INTEGER))
    assert is_identifier(Column(name, "numeric(20,0)", "numeric", Kind.NUMERIC))
    assert not is_identifier(Column(name, "numeric(20,2)", "numeric", Kind.NUMERIC))
    assert not is_identifier(Column(name, "numeric", "numeric", Kind.NUMERIC))
    assert not is_identifier(Column(name, "double precision", "float8", Kind.FLOAT))


@each_row("name", AMOUNTS)
def test_names_of_amounts(name: str) -> None:
    assert not is_identifier(Column(name, "bigint", "int8", Kind.INTEGER))
    assert is_identifier(Column(name, "bigint", "int8", Kind.INTEGER, is_key=True))
    assert is_identifier(Column(name, "oid", "oid", Kind.INTEGER))
