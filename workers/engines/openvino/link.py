"""Frames between the HTTP process and the core: four bytes of length, then JSON. Both ends."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from typing import Any

import orjson

_LENGTH = struct.Struct("!I")
FRAME_BYTES_MAX = 256 * 1024 * 1024
_READ_BYTES = 1 << 18


def pack(message: dict[str, Any]) -> bytes:
    """A message as a frame."""
    body = orjson.dumps(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that are complete now. Raises ValueError for an absurd length."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            if size > FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {size} bytes is not ours")
            if len(self._buffer) < _LENGTH.size + size:
                break
            messages.append(orjson.loads(self._buffer[_LENGTH.size : _LENGTH.size + size]))
            del self._buffer[: _LENGTH.size + size]
        return messages


class CoreLink:
    """The core's end: blocking, single-threaded, polled between decoding steps."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._frames = Frames()

    def send(self, message: dict[str, Any]) -> None:
        """Write a message, waiting while the other side is slow. Raises OSError when it is gone."""
        self._peer.sendall(pack(message))

    def receive(self, block: bool) -> list[dict[str, Any]]:
        """Messages that have arrived, perhaps none; waits if asked to. Raises EOFError at the end."""
        readable, _, _ = select.select([self._peer], [], [], None if block else 0)
        if not readable:
            return []
        data = self._peer.recv(_READ_BYTES)
        if not data:
            raise EOFError("the server is gone")
        return self._frames.feed(data)


class ServerLink:
    """The HTTP process's end, on the event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = Frames()

    def send(self, message: dict[str, Any]) -> None:
        """Queue a message; the core reads between any two steps."""
        if not self._writer.is_closing():
            self._writer.write(pack(message))

    async def receive(self) -> list[dict[str, Any]]:
        """The next messages; an empty list when the core is gone."""
        while data := await self._reader.read(_READ_BYTES):
            if messages := self._frames.feed(data):
                return messages
        return []

    def close(self) -> None:
        """Hang up: the core ends."""
        self._writer.close()
