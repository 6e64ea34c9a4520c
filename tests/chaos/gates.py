"""The way of one worker to the brokers: a relay that can be held or shut, one for each broker.

Held, nothing passes in either direction while all connections stay open, as with a network that swallows packets; what
was under way goes on afterwards. Shut, connections are reset and new ones refused.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal, cast

HOST = "127.0.0.1"


class _Half(asyncio.Protocol):
    """One side of a relayed connection."""

    def __init__(self, gate: "Gate") -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: _Half | None = None
        self._gate = gate
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._gate.halves.add(self)
        if self._gate.is_held:
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self.peer is None or self.peer.transport is None:
            self._early.append(data)  # the broker's side is still to be connected
        else:
            self.peer.transport.write(data)

    def meet(self, peer: "_Half") -> None:
        """Begins to relay."""
        self.peer, peer.peer = peer, self
        if peer.transport is not None:
            peer.transport.writelines(self._early)
            self._early.clear()

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.read(False)

    def resume_writing(self) -> None:
        if self.peer is not None and not self._gate.is_held:
            self.peer.read(True)

    def read(self, on: bool) -> None:
        """Takes what comes, or leaves it in the socket."""
        if self.transport is not None and not self.transport.is_closing():
            with suppress(RuntimeError):  # it may have been lost just now
                (self.transport.resume_reading if on else self.transport.pause_reading)()

    def connection_lost(self, _error: Exception | None) -> None:
        self._gate.halves.discard(self)
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()

    def abort(self) -> None:
        """Resets it."""
        if self.transport is not None:
            self.transport.abort()


class Gate:
    """A relay from a port to another one."""

    def __init__(self, port: int, target: int) -> None:
        self.halves: set[_Half] = set()
        self.is_held = False
        self._port = port
        self._target = target
        self._server: asyncio.Server | None = None
        self._dialling: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Lets through, again or for the first time."""
        self.is_held = False
        for half in self.halves:
            half.read(True)
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._accept, HOST, self._port, reuse_address=True)

    def hold(self) -> None:
        """Lets nothing through."""
        self.is_held = True
        for half in self.halves:
            half.read(False)

    async def shut(self) -> None:
        """Resets all connections, and refuses new ones."""
        self.is_held = False
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in list(self._dialling):
            task.cancel()
        for half in list(self.halves):
            half.abort()
        await asyncio.sleep(0)

    def _accept(self) -> _Half:
        half = _Half(self)
        task = asyncio.get_running_loop().create_task(self._dial(half))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)
        return half

    async def _dial(self, half: _Half) -> None:
        try:
            _, other = await asyncio.get_running_loop().create_connection(lambda: _Half(self), HOST, self._target)
        except (OSError, asyncio.CancelledError):
            half.abort()
            return
        half.meet(other)
        if half.transport is None or half.transport.is_closing():
            other.abort()


class Way:
    """All gates of one worker, by broker."""

    def __init__(self, gates: Mapping[int, Gate]) -> None:
        self._gates = gates
        self._down: set[int] = set()
        self._cut: Literal["", "held", "shut"] = ""

    async def open(self) -> None:
        """Lets through again."""
        await self._set("")

    async def hold(self) -> None:
        """Cuts the worker off without a word."""
        await self._set("held")

    async def shut(self) -> None:
        """Cuts the worker off; it is told so."""
        await self._set("shut")

    async def broker(self, node: int, *, is_up: bool) -> None:
        """Refuses connections for a broker that is down: a relay that accepts and then closes is another fault."""
        (self._down.discard if is_up else self._down.add)(node)
        await self._set(self._cut)

    async def _set(self, cut: Literal["", "held", "shut"]) -> None:
        self._cut = cut
        for node, gate in self._gates.items():
            if cut == "shut" or node in self._down:
                await gate.shut()
            elif cut == "held":
                gate.hold()
            else:
                await gate.open()
