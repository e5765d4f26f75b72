"""The probes over HTTP: `/livez` (the process works) and `/readyz` (it can take and finish work now)."""

import socket
import threading
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from inbox.core.errors import ConfigurationError
from inbox.service.health import Probe

_OK: Final = 200
_UNAVAILABLE: Final = 503


class ProbeServer:
    """Serves the probes from a thread of its own."""

    def __init__(self, host: str, port: int, *, live: Probe, ready: Probe) -> None:
        self._socket = _listen(host, port)
        routes = [Route("/livez", _endpoint(live)), Route("/readyz", _endpoint(ready))]
        config = uvicorn.Config(
            Starlette(routes=routes), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="probes", daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=3)
        self._socket.close()


def _endpoint(probe: Probe):  # type: ignore[no-untyped-def] # noqa: ANN202 - Starlette's own shape
    def answer(_request: Request) -> JSONResponse:
        health = probe()
        return JSONResponse(health.as_json(), status_code=_OK if health.is_well else _UNAVAILABLE)

    return answer


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return _bound(socket.socket(family, kind, protocol), address)
    except OSError as error:
        raise ConfigurationError(
            f"the probes cannot listen on {host}:{port}: {error.strerror}",
            hint="set HTTP_PORT to a free port, or to 0 for none",
        ) from error


def _bound(listening: socket.socket, address: Any) -> socket.socket:
    """Listen too: two may bind one address while neither does, and whoever asks before the start is not refused."""
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError:
        listening.close()
        raise
    return listening
