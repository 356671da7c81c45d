"""The Processes service: who serves here, and how busy this process is.

Telling costs, so it is rationed: the more watchers, the rarer.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from yelpaze.grpc.control import ProcessAddress
from yelpaze.grpc.processes_pb2 import DESCRIPTOR, Member, ProcessState, WatchRequest

SERVICE = DESCRIPTOR.services_by_name["Processes"].full_name
_LEAST_SECONDS = 0.005
_MOMENT = 0.003
_SECONDS_A_WATCHER = 0.0025  # a message takes about 50 µs: two parts in a hundred of a core


class Watching:
    """Notifies watchers of changes, from the event loop. `load` returns (running, waiting, limit)."""

    def __init__(
        self,
        load: Callable[[], tuple[int, int, int]],
        id_: str,
        *,
        is_async: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._load = load
        self._id = id_
        self._is_async = is_async
        self._loop = loop
        self._watchers: set[Any] = set()
        self._lock = threading.Lock()
        # Telling may block where servicers run in threads: one watcher that reads nothing must not
        # hold up more than the others.
        self._notifier = None if is_async else ThreadPoolExecutor(1, "yelpaze-watch")
        self._is_due = False
        self._last = 0.0
        self.members: tuple[ProcessAddress, ...] = ()
        self.is_draining = False

    def changed(self) -> None:
        """Something to tell of has changed; any thread."""
        if self._watchers and not self._is_due:
            self._is_due = True
            if self._is_async:
                self._schedule()
            else:
                self._loop.call_soon_threadsafe(self._schedule)

    def _schedule(self) -> None:
        # A moment later: a client whose call has ended mostly begins the next one, and who was told
        # between the two would take a busy process for an idle one.
        pause = max(_LEAST_SECONDS, _SECONDS_A_WATCHER * len(self._watchers))
        self._loop.call_at(max(self._loop.time() + _MOMENT, self._last + pause), self._notify)

    def _notify(self) -> None:
        self._is_due = False
        self._last = self._loop.time()
        state = self._state()
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            if self._notifier is None:
                watcher(state)
            else:
                self._notifier.submit(watcher, state)
                if state.is_draining:  # a watcher must not hold up the end
                    self._notifier.submit(watcher, None)

    def _state(self) -> ProcessState:
        running, waiting, limit = self._load()
        return ProcessState(
            id=self._id,
            running=running,
            waiting=waiting,
            limit=limit,
            is_draining=self.is_draining,
            members=[
                Member(id=member.id, port=member.address.port, path=member.address.path)
                for member in self.members
            ],
        )

    def add_to(self, server: Any, aside: Any) -> None:
        """Add the service to the server; `aside` are threads of its own, where servicers run in threads."""
        behavior: Any = self._watch
        if aside is not None:

            def behavior(_: Any, context: Any, send_response_callback: Any) -> None:
                self._watch_aside(context, send_response_callback)

            behavior.experimental_non_blocking = True
            behavior.experimental_thread_pool = aside
        handler = grpc.unary_stream_rpc_method_handler(
            behavior, WatchRequest.FromString, ProcessState.SerializeToString
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Watch": handler}),))

    async def _watch(self, _: WatchRequest, context: Any) -> None:
        latest: list[ProcessState] = [self._state()]
        more = asyncio.Event()

        def notify(state: ProcessState) -> None:
            latest[0] = state
            more.set()

        self._watchers.add(notify)
        try:
            while not latest[0].is_draining:  # a watcher must not hold up the end
                await context.write(latest[0])
                await more.wait()
                more.clear()
            await context.write(latest[0])
        finally:
            self._watchers.discard(notify)

    def _watch_aside(self, context: Any, send: Any) -> None:
        def gone() -> None:
            with self._lock:
                self._watchers.discard(send)
            send(None)

        with self._lock:
            self._watchers.add(send)
        context.add_callback(gone)
        send(self._state())
        if self.is_draining:
            send(None)
