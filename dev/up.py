"""``exporter up``: the whole service on this machine until Ctrl-C."""

import base64
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import SecretStr
from rich.markup import escape

from dev.app_process import ApiProcess
from dev.cache import UsageError
from dev.process import is_free
from dev.progress import Progress, console
from dev.sample import DATASETS
from dev.stack import Stack
from dev.supervision import Supervision
from stream_app.datasets.file import load_datasets
from stream_app.settings import Settings


def up(
    port: int,
    workers: int,
    ledger_rows: int,
    folder: Path,
    *,
    also_to: Path | None = None,
) -> None:
    """Start everything, write ``stack.json`` and ``stack.env`` into ``folder``, wait.

    ``also_to`` is a further path for the content of ``stack.env``.

    Raises:
        UsageError: the port is taken, or a stack runs in this folder already.
        ServiceError: a service failed, at the start or later, or a process of the project died too often.
    """
    if not is_free(port):
        raise UsageError(f"port {port} is taken: choose another with --port (make up: PORT=)")
    stack = Stack(folder / "up", ledger_rows=ledger_rows, settings=webhooks(), progress=Progress())
    facts, lines = folder / "stack.json", folder / "stack.env"
    files = [lines] if also_to is None else [lines, also_to]
    with stack:
        api = stack.start_all(workers, port)
        content = describe(stack, api)
        try:
            _write(facts, json.dumps(content, indent=2) + "\n")
            for file in files:
                more = {"EXPORTER_PUBLIC_URL": api.url, "TOKEN": str(content["token"])}
                _write(file, environment_file({**stack.settings(), **more}))
            _greet(api.url, content, facts, stack.metrics_urls, first_request(stack.settings()))
            _watch(
                stack,
                lambda: _write(facts, json.dumps({**content, "pids": stack.pids()}, indent=2) + "\n"),
            )
        finally:
            for path in (facts, *files):
                path.unlink(missing_ok=True)
            console.print("stopping …", style="dim")


def describe(stack: Stack, api: ApiProcess) -> dict[str, object]:
    """Return the addresses, keys and tokens that another program needs to use the stack."""
    given = {key.removeprefix("EXPORTER_").lower(): value for key, value in stack.settings().items()}
    settings = Settings.model_validate(given)
    return {
        "api_url": api.url,
        "token": stack.token("user-1"),
        "admin_token": stack.token("admin", "exports:all", "exports:admin"),
        "operator_token": stack.token("operator", "exports:operate"),
        "kafka_bootstrap_servers": settings.kafka_bootstrap_servers,
        "database_url": settings.database_url.get_secret_value(),
        "source_database_url": settings.source_dsn,
        "s3_endpoint": settings.s3_endpoint,
        "s3_access_key": _shown(settings.s3_access_key),
        "s3_secret_key": _shown(settings.s3_secret_key),
        "s3_bucket": settings.s3_bucket,
        "smtp_url": f"smtp://{settings.smtp_host}:{settings.smtp_port}",
        "worker_metrics_urls": stack.metrics_urls,
        "pids": stack.pids(),
    }


def webhooks() -> dict[str, str]:
    """Return the settings that let the stack call webhooks of this machine.

    Variables of the environment stay as they are.
    """
    if os.environ.keys() & {"EXPORTER_WEBHOOK_SECRET", "EXPORTER_WEBHOOK_SECRET_FILE"}:
        return {}
    secret = base64.b64encode(secrets.token_bytes(32)).decode()
    own = {"EXPORTER_WEBHOOK_SECRET": f"whsec_{secret}", "EXPORTER_WEBHOOK_ALLOW_PRIVATE": "true"}
    return {key: value for key, value in own.items() if key not in os.environ}


def first_request(settings: Mapping[str, str]) -> str | None:
    """Return a command that exports a dataset of the datasets file; ``None`` if there is no dataset.

    Of the sample it exports the ledger of user-1, of other files all rows of the first dataset.
    """
    file = settings.get("EXPORTER_DATASETS_FILE")
    datasets = load_datasets(Path(file) if file else None).datasets
    if not datasets:
        return None
    name, rows = "ledger", ""
    if file != str(DATASETS):
        name = next(iter(datasets))
        rows = " --scope all"
        if roles := datasets[name].roles:
            rows += f" --role {roles[0]}"
    return f"{_program()} request --export-type {name} --format csv --user-id user-1{rows} --output ."


def _program() -> str:
    """Return what a shell in the current folder finds ``exporter`` by."""
    program = Path(sys.executable).with_name("exporter")
    return "exporter" if shutil.which("exporter") == str(program) else _short(program)


def _shown(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def environment_file(settings: dict[str, str]) -> str:
    """Return lines that a shell and the settings can read."""
    return "".join(f"{key}='{value}'\n" for key, value in sorted(settings.items()))


def _write(path: Path, text: str) -> None:
    """Write the file in one step, because another program can be reading it."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text, "utf-8")
    new.replace(path)


def _greet(
    url: str, content: dict[str, object], facts: Path, metrics: Sequence[str], request: str | None
) -> None:
    rows = {
        "API": f"{url}   (page at /, reference at /docs)",
        "tokens": "of user-1, of an administrator, with which the page signs in, and of an operator:",
        "user-1": f"Bearer {content['token']}",
        "admin": f"Bearer {content['admin_token']}",
        "operator": f"Bearer {content['operator_token']}",
        "facts": f"{_short(facts)}, and {_short(facts.with_suffix('.env'))} for a shell",
        "metrics": f"{url}/metrics, of the workers {', '.join(metrics) or 'none'}",
    }
    if request is not None:
        rows["try"] = request
    console.print()
    for name, text in rows.items():
        console.print(f"  [bold]{name:<8}[/] {escape(text)}")
    console.print("\n  Ctrl-C stops everything.\n", style="dim")


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _watch(stack: Stack, changed: Callable[[], None] = lambda: None) -> None:
    """Restart processes that die. Then call ``changed``, because their process ids are new."""
    with Supervision(stack, lambda line: console.print(escape(line), style="yellow")) as supervision:
        while True:
            if supervision.look():
                changed()
            time.sleep(0.1)
