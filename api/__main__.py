"""The command ``exporter api``, which ``python -m api`` runs too."""

import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from producers.console import exit_on_error
from stream_app.termination import exit_on_sigterm

if TYPE_CHECKING:
    from stream_app.settings import Settings

cli = typer.Typer(add_completion=False, rich_markup_mode=None)


@cli.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one")
    ] = 8000,
) -> None:
    """Serve the HTTP API until SIGTERM."""
    exit_on_sigterm()
    from stream_app.garbage_collection import without_collections

    with without_collections():
        import uvicorn  # slow to import, as are the others

        from api.app import create_app
        from api.server import BoundedProtocol, allow_many_connections
        from stream_app.datasets.file import load_datasets
        from stream_app.datasets.source_urls import source_urls
        from stream_app.observability import logs
        from stream_app.setting_errors import load_settings, warn_of_unknown_settings

    with exit_on_error():
        settings = load_settings()
        refuse_unsafe(settings, host)
        # Here an error is printed as one line, and later as a traceback.
        source_urls(load_datasets(settings.datasets_file))
    logs.configure(settings)
    warn_of_unknown_settings()
    allow_many_connections(settings.api_connection_limit)
    BoundedProtocol.limit = settings.api_connection_limit
    app = create_app(settings, host=host)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the server installs its handler, and then raises it again
    uvicorn.run(
        app,
        host=host,
        port=port,
        http=BoundedProtocol,
        ws="none",
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        log_config=None,
        access_log=False,  # it would contain the links of mails, which give access to files
        log_level=settings.log_level.lower(),
        server_header=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=65,
    )


def refuse_unsafe(settings: "Settings", host: str) -> None:
    """Exit if everyone who can reach ``host`` could sign tokens or the links of mails."""
    from stream_app.unsafe_settings import UnsafeSettings, refuse_open_key_set, refuse_weak_secrets

    try:
        refuse_open_key_set(settings)
        refuse_weak_secrets(settings, host)
    except UnsafeSettings as error:
        typer.secho(f"Refusing to listen on {host}: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    sys.argv[0] = "exporter api"
    cli()
