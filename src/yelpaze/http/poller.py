"""The private set of sockets that libcurl watches: one descriptor for the event loop.

The set's own descriptor becomes readable when any of its sockets is, so asyncio sees one
reader however many connections there are (epoll(7) and kqueue(2) both nest).
"""

import select
import sys
from typing import Protocol

import pycurl

# libcurl's words for what happened on a socket: in, out and error in any combination.
_IN, _OUT, _ERR = pycurl.CSELECT_IN, pycurl.CSELECT_OUT, pycurl.CSELECT_ERR
_BATCH = 1024

READ, WRITE = pycurl.POLL_IN, pycurl.POLL_OUT  # interest, as libcurl gives it: 1, 2 or both


class Poller(Protocol):
    """A set of (descriptor, interest) that can be asked what is ready."""

    def fileno(self) -> int:
        """The descriptor that is readable whenever something is ready."""

    def watch(self, fd: int, interest: int, *, known: bool) -> None:
        """Set what to wait for on `fd`; `known` if it was set before and not forgotten."""

    def forget(self, fd: int) -> None:
        """Stop watching `fd`, whether or not it is still open."""

    def poll(self) -> list[tuple[int, int]]:
        """What is ready now: (descriptor, libcurl's event bits). Never blocks."""

    def close(self) -> None:
        """Give the descriptor back."""


if sys.platform == "linux":
    _INTEREST = (0, select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT)

    def _bits(mask: int) -> int:
        bits = _IN if mask & (select.EPOLLIN | select.EPOLLPRI) else 0
        bits |= _OUT if mask & select.EPOLLOUT else 0
        return bits | (_ERR if mask & (select.EPOLLERR | select.EPOLLHUP) else 0)

    _BITS = tuple(_bits(mask) for mask in range(32))

    class EpollPoller:
        """Level-triggered epoll."""

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self.fileno = self._epoll.fileno

        def watch(self, fd: int, interest: int, *, known: bool) -> None:
            mask = _INTEREST[interest]
            try:
                if known:
                    self._epoll.modify(fd, mask)
                else:
                    self._epoll.register(fd, mask)
            except FileNotFoundError:  # closed since: the kernel dropped it, the number is new
                self._epoll.register(fd, mask)
            except FileExistsError:
                self._epoll.modify(fd, mask)

        def forget(self, fd: int) -> None:
            try:
                self._epoll.unregister(fd)
            except (FileNotFoundError, OSError):  # closed: the kernel dropped it by itself
                return

        def poll(self) -> list[tuple[int, int]]:
            return [(fd, _BITS[mask & 31]) for fd, mask in self._epoll.poll(0, _BATCH)]

        def close(self) -> None:
            self._epoll.close()

    def new_poller() -> Poller:
        """The system's poller."""
        return EpollPoller()

else:

    class KqueuePoller:  # pragma: no cover  macOS
        """kqueue: two filters a descriptor, added and deleted apart."""

        def __init__(self) -> None:
            self._kqueue = select.kqueue()
            self.fileno = self._kqueue.fileno

        def _change(self, fd: int, filter_: int, *, on: bool) -> None:
            flags = select.KQ_EV_ADD if on else select.KQ_EV_DELETE
            try:
                self._kqueue.control([select.kevent(fd, filter_, flags)], 0, 0)
            except OSError:
                if on:
                    raise

        def watch(self, fd: int, interest: int, *, known: bool) -> None:  # noqa: ARG002
            self._change(fd, select.KQ_FILTER_READ, on=bool(interest & READ))
            self._change(fd, select.KQ_FILTER_WRITE, on=bool(interest & WRITE))

        def forget(self, fd: int) -> None:
            self.watch(fd, 0, known=True)

        def poll(self) -> list[tuple[int, int]]:
            events = self._kqueue.control(None, _BATCH, 0)
            return [(event.ident, self._bits(event)) for event in events]

        @staticmethod
        def _bits(event: "select.kevent") -> int:
            bits = _OUT if event.filter == select.KQ_FILTER_WRITE else _IN
            return bits | (_ERR if event.flags & select.KQ_EV_ERROR else 0)

        def close(self) -> None:
            self._kqueue.close()

    def new_poller() -> Poller:  # pragma: no cover
        """The system's poller."""
        return KqueuePoller()
