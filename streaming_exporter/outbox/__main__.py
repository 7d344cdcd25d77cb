"""``python -m streaming_exporter.outbox``: the relay of the outbox as a program."""

import argparse
import asyncio
import json
import logging
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from streaming_exporter.errors import BadSettings, ExporterError
from streaming_exporter.kafka_settings import KafkaSettings

if TYPE_CHECKING:
    from streaming_exporter.outbox.sqlalchemy_store import SqlAlchemyStore

DATABASE_URL = "EXPORTER_OUTBOX_DATABASE_URL"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0 success, 1 failure, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "ddl":
            from streaming_exporter.outbox.tables import ddl

            sys.stdout.write(ddl(options.dialect))
            return 0
        url = options.database_url or os.environ.get(DATABASE_URL, "").strip()
        if not url:
            raise BadSettings(
                f"the outbox's database is not known: pass --database-url or set {DATABASE_URL}"
            )
        return asyncio.run(_relay(url, once=options.once) if options.command == "relay" else _status(url))
    except (BadSettings, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    except ExporterError as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m streaming_exporter.outbox",
        description="Publishes the requests of an outbox to Kafka. Kafka: EXPORTER_KAFKA_* variables.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    relay = commands.add_parser("relay", help="publish what waits, until SIGTERM")
    relay.add_argument("--once", action="store_true", help="end when nothing waits any more")
    status = commands.add_parser("status", help="print as JSON how many entries wait and are refused")
    for command in (relay, status):
        command.add_argument(
            "--database-url",
            metavar="URL",
            help=f"URL of SQLAlchemy, such as postgresql+psycopg://user@host/name. Default: {DATABASE_URL}, "
            "which other users of the machine cannot see",
        )
    tables = commands.add_parser("ddl", help="print the statements that create the tables")
    tables.add_argument("--dialect", default="postgresql", choices=("postgresql", "mysql", "sqlite"))
    return parser


async def _relay(url: str, *, once: bool) -> int:
    from streaming_exporter.outbox.relay import Relay, run_until_signal

    settings = KafkaSettings.from_environment()
    store = _open(url)
    try:
        await store.backlog()  # a missing table ends the program at its start, not later
        await run_until_signal(Relay(store, settings), once=once)
    finally:
        await store.close()
    return 0


async def _status(url: str) -> int:
    store = _open(url)
    try:
        sys.stdout.write(json.dumps(asdict(await store.backlog())) + "\n")
    finally:
        await store.close()
    return 0


def _open(url: str) -> "SqlAlchemyStore":
    """Return the outbox at ``url``.

    Raises:
        BadSettings: the URL cannot be read, or its driver is not installed.
    """
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    from streaming_exporter.outbox.sqlalchemy_store import SqlAlchemyStore, open_engine

    try:
        return SqlAlchemyStore(open_engine(url))
    except NoSuchModuleError as error:
        raise _unusable("SQLAlchemy does not know its dialect or driver") from error
    except ImportError as error:
        raise _unusable(f"its driver is not installed: {error.name or 'a module is missing'}") from error
    except (SQLAlchemyError, ValueError, TypeError) as error:
        raise _unusable("it cannot be read; is a character of the password not percent-encoded?") from error


def _unusable(reason: str) -> BadSettings:
    """Return the error for a URL that cannot be used, without its text, which can have a password."""
    return BadSettings(
        f"the URL of the outbox's database cannot be used ({reason}); allowed: a URL of SQLAlchemy whose "
        "driver is installed, such as postgresql+psycopg://user@host/name"
    )


if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
    for chatty in ("aiokafka", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    sys.exit(main())
