"""A front before a server: it passes everything on, and notes what came on each session's wire."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Generator
from typing import Any

Event = dict[str, Any]


class Wire:
    """A front before a server that passes everything on, and notes what the clients say on each session."""

    def __init__(self, host: str, port: int, kind: str) -> None:
        self.there, self.kind = (host, port), kind
        self.events: list[Event] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Wire:
        self._thread.start()
        if not self._ready.wait(10):
            raise TimeoutError("the front before the server did not start")
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()

    def _note(self, session: int, kind: str, text: str = "") -> None:
        self.events.append({"t": time.monotonic_ns(), "kind": kind, "session": session, "text": text})

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = sum(event["kind"] == "opens" for event in self.events) + 1
        self._note(session, "opens")
        their_reader, their_writer = await asyncio.open_connection(*self.there)
        messages = (postgresql_messages if self.kind == "postgresql" else mysql_messages)()
        next(messages)

        async def client_to_server() -> None:
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    for text in messages.send(data):
                        self._note(session, "says", text)
                    their_writer.write(data)
                    await their_writer.drain()
            if not their_reader.at_eof():
                self._note(session, "ends")
            their_writer.close()

        async def server_to_client() -> None:
            with contextlib.suppress(OSError):
                while data := await their_reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            self._note(session, "is ended")
            writer.close()

        with contextlib.suppress(asyncio.CancelledError):  # we are closed before the session is
            await asyncio.gather(client_to_server(), server_to_client())


TLS = (
    b"\x14",
    b"\x15",
    b"\x16",
    b"\x17",
)  # how a record of it begins: https://www.rfc-editor.org/rfc/rfc8446#section-5.1


def postgresql_messages() -> Generator[list[str], bytes]:
    """Takes bytes, gives the messages in them, statements as such: PostgreSQL's protocol, version 3.

    https://www.postgresql.org/docs/current/protocol-message-formats.html
    """
    data, found, started, statements = b"", list[str](), False, dict[bytes, str]()
    while True:
        data += yield found
        found = []
        while data:
            if not started:
                if data[:1] in TLS:
                    break
                if len(data) < 8 or len(data) < (size := max(8, int.from_bytes(data[:4]))):
                    break
                started = data[4:8] == b"\x00\x03\x00\x00"
                data = data[size:]
                continue
            if len(data) < 5 or len(data) < (size := 1 + int.from_bytes(data[1:5])):
                break
            kind, body, data = chr(data[0]), data[5:size], data[size:]
            if kind == "Q":
                found.append(body.rstrip(b"\0").decode())
            elif kind == "P":
                name, statement, _ = body.split(b"\0", 2)
                statements[name] = statement.decode()
            elif kind == "B":
                found.append(statements.get(body.split(b"\0", 2)[1], ""))
            elif kind in "Xcf":
                found.append({"X": "Terminate", "c": "CopyDone", "f": "CopyFail"}[kind])
        if not started and data[:1] in TLS:  # what it says is not for us
            found, data = [f"encrypted, {len(data)} bytes"], b""


def mysql_messages() -> Generator[list[str], bytes]:
    """Takes bytes, gives the commands in them: the client/server protocol of MySQL and MariaDB.

    https://mariadb.com/docs/server/reference/clientserver-protocol
    """
    data, found = b"", list[str]()
    while True:
        data += yield found
        found = []
        while len(data) >= 4 and len(data) >= (size := 4 + int.from_bytes(data[:3], "little")):
            body, number, data = data[4:size], data[3], data[size:]
            if number == 0 and body:
                if body[0] in (0x03, 0x16):
                    found.append(body[1:].decode(errors="replace"))
                elif body[0] == 0x01:
                    found.append("Quit")
