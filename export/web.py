"""Runs the web application of an exported model on a socket."""

import re
import socket
from contextlib import suppress

import uvicorn

from export import server
from export.served_model import ServedModel
from pipeline import console
from pipeline.console import UserError

_WAITING_REQUESTS = 32  # Each may hold a body in memory; more are answered with 503.


def serve(folder: str, *, name: str, limits: server.Limits, host: str, port: int) -> None:
    """Serves the newest version in a folder until it is interrupted.

    Raises:
      UserError: There is no model, its name cannot stand in an address, or
        the port is taken.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise UserError(
            f"--name is {name!r}; expected letters, digits, and any of _.- alone, for it stands in addresses."
        )
    listener = _listen(host, port)
    model = ServedModel.load(folder, name=name)
    shown = f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{listener.getsockname()[1]}"
    console.say(f"Serving version {model.version} of {folder}: page at {shown}/, REST at {shown}/v1/models/{name}")
    config = uvicorn.Config(
        server.application(model, limits), log_level="warning", limit_concurrency=_WAITING_REQUESTS, server_header=False
    )
    with suppress(KeyboardInterrupt):  # How one ends it.
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise UserError(f"cannot listen at {host}:{port}: {error.strerror}; give another --port or --host.") from None
