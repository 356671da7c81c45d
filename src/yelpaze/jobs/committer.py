"""Commits once in a while, off the event loop, and holds rows back when the sink can't keep up."""

import asyncio
import contextlib
from collections.abc import Callable

from yelpaze.io.protocol import Checkpoint, Sink
from yelpaze.io.threads import in_thread

_MOST_WAITING = 8 << 20


class Committer:
    """One commit at a time: every `seconds`, and as soon as much is waiting.

    `checkpoint` tells how the run stands now, given whether it is finished; `after` is called
    after each commit, on the loop.
    """

    def __init__(
        self,
        sink: Sink,
        checkpoint: Callable[[bool], Checkpoint],
        *,
        seconds: float,
        after: Callable[[], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._sink = sink
        self._checkpoint = checkpoint
        self._seconds = seconds
        self._after = after
        self._on_error = on_error
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._has_failed = False

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.ensure_future(self._run())

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be written that no more should be taken; if so, a commit comes soon."""
        if self._sink.waiting < _MOST_WAITING:
            return False
        self._due.set()
        return True

    async def _run(self) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._due.wait()
            self._due.clear()
            try:
                if not self._stopping:
                    await self.commit()
            except Exception as error:  # noqa: BLE001  told to the one who runs rows, who stops
                self._on_error(error)
                return

    async def commit(self, *, is_finished: bool = False, is_last: bool = False) -> None:
        """Make durable what was taken until now; nothing more, once a commit has failed.

        What that one had taken from the sink is lost, and the next would say that it was there.
        """
        if self._has_failed:
            return
        try:
            await in_thread(self._sink.commit(self._checkpoint(is_finished), is_last=is_last))
        except BaseException:
            self._has_failed = True
            raise
        self._after()

    async def stop(self) -> None:
        """No more commits; one that is under way is waited for."""
        self._stopping = True
        self._due.set()
        if self._task is not None:
            await self._task
