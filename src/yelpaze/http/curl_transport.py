"""libcurl, driven by one private poller: no thread, no asyncio reader for each socket.

Theory of operation
-------------------
libcurl's sockets live in a `Poller`; only the poller's own descriptor is registered with
the event loop. When it is readable, `_pump` takes a batch of events, feeds each to its
multi handle, and reports the transfers that are done.

*Shards.* A multi handle looks through all connections of a host for a free one: 16 µs a
request at 64 connections, 30 at 1,000. So a host's transfers are dealt over several multi
handles ("shards") of at most `SHARD` transfers each: shard 0 carries every host's first 64
transfers, shard 1 the next 64, and so on.

*Sockets between two transfers.* When a transfer ends, libcurl says POLL_REMOVE for its
socket, and POLL_IN again when the connection is used next. Following both costs two
system calls a request, so a connection stays registered, for reading, marked
*released*. An event on a released socket means that the peer has closed it, or has sent
what nobody asked for: it is unregistered, or it would wake us for ever, and no transfer
uses it any more (`stale.py`). libcurl may also close the socket itself and
the number come back as another socket's; `SOCKOPTFUNCTION` tells of each new connection,
so what was known of that number is dropped. Sockets that are no connections (the
resolver's wake-up) are never kept past POLL_REMOVE.

*Memory.* `Memory` says which transfers are paused when bodies fill it, and which go on.
"""

import asyncio
import os

import pycurl

from yelpaze.http.guarded_socket import guarded
from yelpaze.http.handle import Handle, Shape, TransportConfig
from yelpaze.http.memory import Memory
from yelpaze.http.poller import READ, Poller, new_poller
from yelpaze.http.result import read
from yelpaze.http.shard import SHARD, HostPool, Shard
from yelpaze.http.stale import StaleConnections
from yelpaze.http.transport import AttemptRequest, OnAttemptDone, Transfer
from yelpaze.policy.address_guard import AddressGuard

_IDLE_HANDLES = 1024
_MAX_POOLS = 10_000
_KICK_EVENTS = 16  # transfers that go on in one kick, or so
_ROUNDS = 16
_REMOVE = pycurl.POLL_REMOVE


class CurlTransport:
    """Carries attempts by libcurl.

    `connections`: kept in all, over `shards`. `guard`: refuses addresses when they are connected to.
    """

    def __init__(
        self,
        config: TransportConfig,
        *,
        connections: int,
        shards: int,
        memory: Memory,
        loop: asyncio.AbstractEventLoop,
        guard: AddressGuard | None = None,
    ) -> None:
        self._config = config
        self._loop = loop
        # Every host's first transfers are in shard 0; few hosts need the others.
        self._kept_in_others = max(SHARD, connections // shards // 2)
        self._kept_in_first = max(SHARD, connections - (shards - 1) * self._kept_in_others)
        self._poller: Poller = new_poller()
        self._shards: list[Shard] = []
        self._idle: dict[Shape, list[Handle]] = {}
        self._idle_count = 0
        self._active: dict[pycurl.Curl, Handle] = {}
        self._watched: dict[int, Shard] = {}
        self._interest: dict[int, int] = {}
        self._released: set[int] = set()
        self._connected: set[int] = set()
        self._kicked: dict[Shard, None] = {}
        self._starting: list[Handle] = []  # libcurl has given them no connection yet
        self._stale = StaleConnections()
        self._has_started = False
        self._wake: asyncio.TimerHandle | None = None
        self._wake_at = 0.0
        self._pumping = False
        self._soon = False
        self._pools: dict[str, HostPool] = {}
        self._guard = guard
        self._memory = memory
        memory.on_freed = self._on_freed
        self._paused: dict[Handle, None] = {}
        self.closed = False
        loop.add_reader(self._poller.fileno(), self._pump)

    # ── attempts ────────────────────────────────────────────────────────────────

    def start(self, attempt: AttemptRequest, on_done: OnAttemptDone) -> Transfer:
        """Begin an attempt."""
        handle = self._handle((attempt.method, bool(attempt.body), attempt.replayable, attempt.tls))
        pool = self._pools.get(attempt.host) or self._new_pool(attempt.host)
        number = pool.take()
        shard = self._shards[number] if number < len(self._shards) else self._new_shard_at(number)
        resolve = None
        if attempt.addresses is not None:
            resolve = pool.resolve_entries(attempt.addresses, shard, self._loop.time())
        handle.on_done, handle.pool, handle.shard = on_done, pool, shard
        try:
            handle.prepare(attempt, resolve)
        except BaseException:
            pool.give(number)
            handle.easy.close()
            raise
        self._active[handle.easy] = handle
        shard.multi.add_handle(handle.easy)
        self._starting.append(handle)
        self._has_started = True
        self._kick(shard)
        return handle

    def _handle(self, shape: Shape) -> Handle:
        idle = self._idle.get(shape)
        if idle:
            self._idle_count -= 1
            return idle.pop()
        handle = Handle(self._config, shape, self._cancel)
        handle.easy.setopt(pycurl.SOCKOPTFUNCTION, self._on_new_socket)
        if self._guard is not None:
            handle.easy.setopt(pycurl.OPENSOCKETFUNCTION, guarded(self._guard, handle))
        return handle

    def _cancel(self, handle: Handle) -> None:
        """Stop an attempt at once and take its handle back; its `on_done` is not called any more."""
        shard = handle.shard
        if shard is None or self._active.pop(handle.easy, None) is None:
            return
        if handle.resolve_set and handle.pool is not None:  # libcurl may not have read it yet
            handle.pool.forget_addresses(shard)
        shard.multi.remove_handle(handle.easy)
        self._unpaused(handle)
        self._give(handle)
        if self._pumping:  # its end may be in the batch that is being read: never reuse it
            handle.easy.close()
        else:
            self._release(handle)

    def _release(self, handle: Handle) -> None:
        """Keep a finished or cancelled handle for reuse; one with TLS settings of its own is used once."""
        if self.closed or self._idle_count >= _IDLE_HANDLES or handle.shape[3] is not None:
            handle.easy.close()
            return
        handle.clear()
        self._idle_count += 1
        self._idle.setdefault(handle.shape, []).append(handle)

    # ── hosts ───────────────────────────────────────────────────────────────────

    def _new_pool(self, host: str) -> HostPool:
        if len(self._pools) >= _MAX_POOLS:
            self._pools = {name: pool for name, pool in self._pools.items() if not pool.is_idle}
        pool = self._pools[host] = HostPool(host)
        return pool

    def _give(self, handle: Handle) -> None:
        if handle.pool is not None and handle.shard is not None:
            handle.pool.give(handle.shard.number)

    def _new_shard_at(self, number: int) -> Shard:
        """Shards are made when they are first asked for, in order."""
        while len(self._shards) <= number:
            self._shards.append(self._new_shard())
        return self._shards[number]

    # ── memory ──────────────────────────────────────────────────────────────────

    def _on_freed(self) -> None:
        """Callers hold fewer bytes of answers."""
        if self._paused:
            self._weigh_soon()

    def _weigh_soon(self) -> None:
        if self._memory.unweighed < 0:
            self._memory.unweighed = 0
            self._loop.call_soon(self._weigh)

    def _weigh(self) -> None:
        """Pause or resume transfers by what all bodies come to."""
        if self.closed:
            return
        stopping, going = self._memory.weigh(self._active.values(), self._paused.keys())
        now = self._loop.time()
        for handle in stopping:
            if handle.pause(now):
                self._paused[handle] = None
        for handle in going:
            del self._paused[handle]
            handle.resume(now)
            assert handle.shard is not None
            self._kick(handle.shard)

    def _unpaused(self, handle: Handle) -> None:
        """A transfer is over: whoever waits for memory may have some now."""
        if self._paused:
            self._paused.pop(handle, None)
            self._weigh_soon()

    def close(self) -> None:
        """Abort what is under way and close every socket."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._poller.fileno())
        if self._wake is not None:
            self._wake.cancel()
        for handle in list(self._active.values()):
            self._cancel(handle)
        for idle in self._idle.values():
            for handle in idle:
                handle.easy.close()
        for shard in self._shards:
            shard.multi.close()
        self._idle.clear()
        self._shards.clear()
        self._poller.close()

    # ── what libcurl tells us ───────────────────────────────────────────────────

    def _new_shard(self) -> Shard:
        kept = self._kept_in_others if self._shards else self._kept_in_first
        shard = Shard(len(self._shards), kept)
        interest, released, watched = self._interest, self._released, self._watched
        connected, watch = self._connected, self._poller.watch

        def on_socket(what: int, fd: int, _multi: object, _data: object) -> None:
            current = interest.get(fd)
            if what == _REMOVE:
                if current is None or fd not in connected:
                    self._forget(fd)
                    return
                released.add(fd)
                if current != READ:  # its answer came in the event in which it could be written
                    watch(fd, READ, known=True)
                    interest[fd] = READ
                return
            released.discard(fd)
            watched[fd] = shard
            if current != what:
                watch(fd, what, known=current is not None)
                interest[fd] = what

        def on_timer(milliseconds: int) -> None:
            if milliseconds == 0:
                shard.due = None
                self._kick(shard)
            elif milliseconds < 0:
                shard.due = None
            else:
                shard.due = self._loop.time() + milliseconds / 1000
                if not self._pumping:
                    self._arm()

        shard.multi.setopt(pycurl.M_SOCKETFUNCTION, on_socket)
        shard.multi.setopt(pycurl.M_TIMERFUNCTION, on_timer)
        return shard

    def _on_new_socket(self, fd: int, _purpose: int) -> int:
        if fd in self._interest:
            self._forget(fd)
        self._connected.add(fd)
        if self._guard is not None:
            os.set_inheritable(fd, False)  # pycurl's duplicate of a guarded socket is not
        return 0  # SOCKOPT_OK

    def _forget(self, fd: int) -> None:
        self._unwatch(fd)
        self._connected.discard(fd)

    def _unwatch(self, fd: int) -> None:
        if self._interest.pop(fd, None) is not None:
            self._poller.forget(fd)
        self._watched.pop(fd, None)
        self._released.discard(fd)

    # ── the pump ────────────────────────────────────────────────────────────────

    def _kick(self, shard: Shard) -> None:
        self._kicked[shard] = None
        if not self._pumping and not self._soon:
            self._soon = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        if self.closed:
            return
        memory = self._memory
        self._soon = False
        self._pumping = True
        try:
            self._feed()
            for _ in range(_ROUNDS):
                if not self._kicked:
                    break
                if self._has_started:  # by a callback, since sockets were looked at
                    self._feed()
                if self._stale.found:
                    self._check_starting()
                self._starting.clear()
                kicked, self._kicked = self._kicked, {}
                for shard in kicked:
                    shard.multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
                    memory.unweighed += _KICK_EVENTS
                    if memory.unweighed >= 0:
                        self._weigh()
                self._collect(kicked)
        finally:
            self._pumping = False
        if self._kicked and not self._soon:
            self._soon = True
            self._loop.call_soon(self._pump)
        self._arm()

    def _check_starting(self) -> None:
        """Some kept connections are stale: check which ones the new transfers are given."""
        self._stale.forget_old(self._loop.time())
        for handle in self._starting:
            if handle.shard is not None and not handle.is_checked:
                handle.check_connection(self._stale)

    def _feed(self) -> None:
        """Give libcurl the sockets' events, then collect what they finished."""
        touched: dict[Shard, None] = {}
        watched, released, memory = self._watched, self._released, self._memory
        self._has_started = False
        events = self._poller.poll()
        idle = [fd for fd, _ in events if fd in released or fd not in watched]
        if idle:  # first: libcurl may send on a kept connection what it hears on another one
            self._note_stale(idle)
        for fd, bits in events:
            shard = watched.get(fd)
            if shard is None:
                continue
            shard.multi.socket_action(fd, bits)
            memory.unweighed += 1
            if memory.unweighed >= 0:
                self._weigh()
            touched[shard] = None
        self._collect(touched)

    def _note_stale(self, idle: list[int]) -> None:
        """Something has arrived on sockets that no transfer uses."""
        now = self._loop.time()
        for fd in idle:
            if fd in self._connected:
                self._stale.add(fd, now)
            self._unwatch(fd)
        if self._stale.found:  # what is under way may be sent again, on one of them
            self._starting += [handle for handle in self._active.values() if not handle.has_begun]
            self._check_starting()

    def _collect(self, shards: dict[Shard, None]) -> None:
        for shard in shards:
            queued = 1
            while queued:
                queued, good, bad = shard.multi.info_read()
                for easy in good:
                    self._finish(shard, easy, 0, "")
                for easy, code, message in bad:
                    self._finish(shard, easy, code, message)

    def _finish(self, shard: Shard, easy: pycurl.Curl, code: int, message: str) -> None:
        handle = self._active.pop(easy, None)
        if handle is None:  # cancelled by a `done` of this very batch
            return
        shard.multi.remove_handle(easy)
        if handle.met_stale:  # nothing was sent
            handle.met_stale = False
            if handle.one_time is not None:
                handle.one_time.restart()
            self._active[easy] = handle
            shard.multi.add_handle(easy)
            self._starting.append(handle)
            self._kick(shard)
            return
        self._memory.ended(handle)
        self._unpaused(handle)
        attempt, on_done = handle.attempt, handle.on_done
        if attempt is None or on_done is None:
            return
        result = read(handle, attempt, code, message, self._config)
        if handle.pool is not None and result.http_version:
            handle.pool.http2 = result.http_version == "2"
            handle.pool.has_http1 |= not handle.pool.http2
        self._give(handle)
        self._release(handle)
        try:
            on_done(result)
        except Exception as error:  # noqa: BLE001  one caller's mistake must not cost the others' answers
            # As asyncio itself does with an exception that has no caller to go to.
            self._loop.call_exception_handler({"message": "a call's callback raised", "exception": error})

    # ── libcurl's own timers ────────────────────────────────────────────────────

    def _arm(self) -> None:
        due = min((shard.due for shard in self._shards if shard.due is not None), default=None)
        if self._wake is not None:
            if due is not None and self._wake_at <= due:
                return  # it fires early enough, and then arms itself anew
            self._wake.cancel()
            self._wake = None
        if due is not None:
            # uvloop gives a handle without `when` for a time that has come.
            self._wake, self._wake_at = self._loop.call_at(due, self._on_wake), due

    def _on_wake(self) -> None:
        self._wake = None
        now = self._loop.time()
        for shard in self._shards:
            if shard.due is not None and shard.due <= now:
                shard.due = None
                self._kicked[shard] = None
        if self._kicked:
            self._pump()
        else:
            self._arm()
