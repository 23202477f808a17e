"""python-socketio's threaded client with a record."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import engineio
import socketio
from engineio.packet import CLOSE

from .recorder import TIMEOUT, TestClient

_SILENCE = object()


class _Transport(engineio.Client):
    """engineio's has a thread for each message, and those overtake each other."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_order = ThreadPoolExecutor(1)

    def _trigger_event(self, event: str, *args: Any, run_async: bool = False, **kwargs: Any) -> Any:
        if run_async:
            return self._in_order.submit(super()._trigger_event, event, *args, **kwargs)
        return super()._trigger_event(event, *args, **kwargs)

    def _write_loop(self) -> None:
        """engineio's ends without its goodbye when it is to end while a POST is under way: the
        server knows nothing of that, and answers the poll with the next ping only."""
        super()._write_loop()
        while self.state == "disconnecting" and not self.queue.empty():
            left = self.queue.get()
            if left and left.packet_type == CLOSE:
                self._send_request("POST", self.base_url, body="1", timeout=self.request_timeout)


class InOrder(socketio.Client):
    """Its handlers are called in the order of the events."""

    def _engineio_client_class(self) -> type[engineio.Client]:
        return _Transport


class _Client(InOrder):
    """python-socketio answers with whatever a handler returns, unless that is silence."""

    def _send_packet(self, pkt: Any) -> None:
        if pkt.data != [_SILENCE]:
            super()._send_packet(pkt)


class PyClient(TestClient):
    def __init__(self, name: str, namespaces: Sequence[str] = ("/",)) -> None:
        super().__init__(name, namespaces)
        self.sio = _Client(
            reconnection_delay=0.1,
            reconnection_delay_max=0.5,
            handle_sigint=False,
            # Longer than a slow host takes to start a worker: a waiting client waits.
            request_timeout=30,
        )
        for namespace in namespaces:
            self._register(namespace)

    def _register(self, namespace: str) -> None:
        def on_any(event: str, *args: Any) -> Any:
            self._on_event(event, namespace, args)
            if event.startswith("silent") and self.name in args[0]:
                return _SILENCE
            return {"from": self.name, "got": list(args)}

        def on_connect() -> None:
            self._on_connect(namespace, self.sio.get_sid(namespace))

        def on_disconnect(reason: str) -> None:
            self._on_disconnect(namespace, reason)

        self.sio.on("*", on_any, namespace=namespace)
        self.sio.on("connect", on_connect, namespace=namespace)
        self.sio.on("disconnect", on_disconnect, namespace=namespace)

    @property
    def transport(self) -> str:
        return str(self.sio.transport())

    @property
    def local_port(self) -> int:
        """The client's end of its websocket."""
        return int(self.sio.eio.ws.sock.getsockname()[1])

    def connect(self, url: str, transports: list[str] | None = None) -> None:
        self.sio.connect(
            url, transports=transports, namespaces=self.namespaces, wait_timeout=TIMEOUT
        )
        self.wait_connected()

    def emit(self, event: str, *args: Any, namespace: str = "/") -> None:
        self.sio.emit(event, args, namespace=namespace)

    def call(self, event: str, *args: Any, namespace: str = "/", timeout: float = TIMEOUT) -> Any:
        try:
            answer = self.sio.call(event, args, namespace=namespace, timeout=timeout)
            return list(answer) if isinstance(answer, tuple) else answer
        except socketio.exceptions.TimeoutError:
            raise TimeoutError(f"{self.name}: no ack of {event} in {timeout:g} s") from None
        except socketio.exceptions.SocketIOError as error:
            raise ConnectionError(f"{self.name}: {error}") from None

    def close(self) -> None:
        self.sio.shutdown()
