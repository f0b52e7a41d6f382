"""A small web server for an exported model: TensorFlow Serving's REST interface, and a page to try it.

One request is computed at a time, on all cores or the accelerator; others wait.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import tensorflow as tf
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from export import rest, templates
from export.rest import BadRequest
from export.served_model import ServedModel

_READ_BEYOND = 8  # Times the limit; a client that is cut off while it sends never reads why.
_HEADERS = {
    # The page brings its own style and script; nothing else may run, and nothing is loaded from elsewhere.
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may ask for.

    Attributes:
      body_bytes: Size of its body.
      images: Number of its pictures.
    """

    body_bytes: int = 32 << 20
    images: int = 64


def application(model: ServedModel, limits: Limits) -> Starlette:
    """Returns the web application of a model."""
    service = _Service(model, limits)
    base = f"/v1/models/{model.name}"
    prefixes = (base, f"{base}/versions/{model.version}")
    routes = [Route("/", service.page)]
    for prefix in prefixes:
        routes += [
            Route(prefix, service.status),
            Route(f"{prefix}/metadata", service.metadata),
            Route(f"{prefix}:predict", service.predict, methods=["POST"]),
        ]
    errors: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        404: service.not_found,
        405: service.wrong_method,
        500: service.failed,
    }
    return Starlette(routes=routes, exception_handlers=errors)


class _Service:
    def __init__(self, model: ServedModel, limits: Limits) -> None:
        self._model = model
        self._limits = limits
        self._one_at_a_time = anyio.CapacityLimiter(1)

    async def page(self, _: Request) -> Response:
        return HTMLResponse(templates.render("serve.html", model=self._model, limits=self._limits), headers=_HEADERS)

    async def status(self, _: Request) -> Response:
        return JSONResponse(rest.status(self._model))

    async def metadata(self, _: Request) -> Response:
        return JSONResponse(rest.metadata(self._model))

    async def predict(self, request: Request) -> Response:
        try:
            body = await _body(request, self._limits.body_bytes)
            answer = await anyio.to_thread.run_sync(self._answer, body, limiter=self._one_at_a_time)
        except BadRequest as error:
            return _error(str(error), error.status)
        except ClientDisconnect:
            return Response(status_code=499)  # Nobody reads it.
        return JSONResponse(answer)

    def _answer(self, body: bytes) -> dict[str, Any]:
        request = rest.parse(body, self._model, max_images=self._limits.images)
        try:
            outputs = self._model.call(request.signature, request.inputs)
        except tf.errors.InvalidArgumentError as error:
            raise BadRequest(f"the model refused the request: {_reason(error)}.") from None
        return rest.response(outputs, by_row=request.by_row)

    async def not_found(self, request: Request, _: Exception) -> Response:
        name, version = self._model.name, self._model.version
        return _error(
            f"nothing is at {request.url.path}; model {name}, version {version}, is at /v1/models/{name}.", 404
        )

    async def wrong_method(self, request: Request, _: Exception) -> Response:
        return _error(
            f"{request.method} is not for {request.url.path}; POST is for :predict, and GET for the rest.", 405
        )

    async def failed(self, _: Request, error: Exception) -> Response:
        return _error(f"the model failed: {type(error).__name__}.", 500)


def _reason(error: tf.errors.InvalidArgumentError) -> str:
    """Returns what the check in the graph says, without what TensorFlow puts around it."""
    message = " ".join(str(error.message).split())
    found = re.search(r"assertion failed: \[(.*?)\]", message)
    return found.group(1) if found else message[:200]


async def _body(request: Request, limit: int) -> bytes:
    """Reads a body, but keeps no more of it than the limit."""
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            body += chunk
        elif size > _READ_BEYOND * limit:
            break
    if size > limit:
        raise BadRequest(f"the body is larger than {limit >> 20} MiB, the limit of this server.", 413)
    return bytes(body)


def _error(message: str, status: int) -> Response:
    return JSONResponse({"error": message}, status_code=status)
