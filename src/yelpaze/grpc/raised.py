"""What servicers raise, as gRPC can answer it.

gRPC answers a call whose servicer raised an `Exception` that has a text in UTF-8, and logs it. Anything else
leaves the call without a status until its deadline. In threads it also costs the thread; on an event loop,
SystemExit and KeyboardInterrupt end the process, and CancelledError is taken for the client's.
"""

import asyncio

_UNREADABLE = "its text cannot be read"


def answerable(error: BaseException) -> Exception | None:
    """What is raised in place of `error`; None if gRPC can answer `error` itself."""
    is_fit = isinstance(error, Exception)
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001  it is user code
        text, is_fit = _UNREADABLE, False
    sent = text.encode("utf-8", "backslashreplace").decode()
    # A StopIteration would be the end of a generator, and no future takes it (PEP 479).
    if is_fit and sent == text and not isinstance(error, StopIteration | StopAsyncIteration):
        return None
    return RuntimeError(f"{type(error).__name__}: {sent}" if sent else type(error).__name__)


def is_cancelled(error: BaseException) -> bool:
    """Whether gRPC cancelled the task that runs this; else a servicer raised the same by itself."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
