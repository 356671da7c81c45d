"""Threads for servicers that are not async.

The standard library's pool makes a future, takes three locks and counts idle threads for each
call; here a call is one item in one queue. Beyond its bound a call is not queued but refused, by
threads aside, which also answer health checks and watchers, so that these never wait behind
long calls.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

_Item = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
_LOG = logging.getLogger(__name__)
_DONE: Future[Any] = Future()
_DONE.set_result(None)


class Threads(Executor):
    """`size` threads that run calls, at most `most` of them under way or waiting.

    For gRPC's server, which looks at nothing that `submit` gives but its end.
    """

    def __init__(self, size: int, most: int | None) -> None:
        self.aside = ThreadPoolExecutor(max_workers=2, thread_name_prefix="yelpaze-aside")
        self._most = most
        self.changed: Callable[[], None] = lambda: None  # called when more waits
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._refusing = threading.local()
        self._busy = 0
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, name=f"yelpaze-call-{number}", daemon=True)
            for number in range(size)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken yet."""
        return self._queue.qsize()

    @property
    def is_refusing(self) -> bool:
        """Whether the call that this thread runs is one too many."""
        return getattr(self._refusing, "now", False)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._most is not None and self._busy + self._queue.qsize() >= self._most:
            return self.aside.submit(self._refuse, fn, args, kwargs)
        self._queue.put((fn, args, kwargs))
        self.changed()
        return _DONE

    def _refuse(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._refusing.now = True
        try:
            fn(*args, **kwargs)
        finally:
            self._refusing.now = False

    def _work(self) -> None:
        take = self._queue.get
        while (item := take()) is not None:
            fn, args, kwargs = item
            with self._lock:
                self._busy += 1
            try:
                fn(*args, **kwargs)
            except BaseException:  # noqa: BLE001  as in the standard library's pool, it must not end the thread
                _LOG.exception("a call ended without a status")
            finally:
                with self._lock:
                    self._busy -= 1
            del item, fn, args, kwargs  # a request must not live until the next one

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for _ in self._threads:
            self._queue.put(None)
        self.aside.shutdown(wait=wait, cancel_futures=cancel_futures)
