"""`python -m chaos.targets.reference [--port N]`: serve until SIGTERM or SIGINT. Exit status 0, or 2 when the settings are wrong."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import stamina.instrumentation
from uvicorn import Config, Server

from chaos.errors import ConfigError
from chaos.targets.reference.app import build_app
from chaos.targets.reference.protocol import strict_protocol
from chaos.targets.reference.retention import DailyFile
from chaos.targets.reference.settings import Settings
from chaos.targets.reference.telemetry import make_log

if TYPE_CHECKING:
    from collections.abc import Generator

    import structlog

    from chaos.targets.reference.app import Application


class _ToStructlog(logging.Handler):
    """What libraries log, as one JSON line like everything else. Only its text: a traceback may hold values."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger) -> None:
        super().__init__()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        self.log.warning("library", logger=record.name, text=record.getMessage())


class _Server(Server):
    """uvicorn, leaving on SIGTERM with status 0 (it raises the signal once more when it has shut down: status -15)."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def make_server(app: Application, settings: Settings) -> Server:
    """The HTTP server around the application: no access log, no Server header, no WebSockets, no trust in proxy headers."""
    config = Config(
        app,
        host=settings.bind,
        port=settings.port,
        http=strict_protocol(app.reporter, release=settings.release),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=1,
        backlog=512,
    )
    return _Server(config)


def serve(app: Application, settings: Settings) -> int:
    """Run until a signal comes; 0. What libraries log goes where everything goes, as JSON."""
    log = app.log
    logging.basicConfig(handlers=[_ToStructlog(log)], level=logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # its 'Invalid HTTP request received' is a request line of ours
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    stamina.instrumentation.set_on_retry_hooks([])  # retries are counted in our own metrics
    log.info(
        "starting", release=settings.release, port=settings.port, enforce_hosts=settings.enforce_hosts, bypass=settings.bypass
    )
    with asyncio.Runner() as runner:
        runner.run(make_server(app, settings).serve())
    log.info("stopped")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Read the settings, serve. Settings are checked before a port is opened."""
    parser = argparse.ArgumentParser(prog="python -m chaos.targets.reference", description="The reference service")
    parser.add_argument("--port", default=None, help="the port to listen on (default: PORT, else 8000; 0: any)")
    given = parser.parse_args(arguments)
    environment = dict(os.environ)
    if given.port is not None:
        environment["PORT"] = given.port
    try:
        settings = Settings.from_environment(environment)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    log = make_log(cast("TextIO", DailyFile(Path(settings.log_file)))) if settings.log_file else None
    return serve(build_app(settings, log=log), settings)


if __name__ == "__main__":
    sys.exit(main())
