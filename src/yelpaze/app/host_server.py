"""The uvicorn server that runs us, found without a signal, a setting or a patch.

ASGI tells an application the end of its server by `lifespan.shutdown`, a stream by `http.disconnect`. uvicorn
sends neither while a stream is open: it stops listening, waits until its connections are closed, and only
then sends `lifespan.shutdown`. So somebody has to look at the server. Its `serve()` runs in our loop, in a
thread as well, where it hears no signals, and below gunicorn: the coroutines that a task waits in lead to it.
"""

import asyncio
import sys
from typing import Any


def host_server() -> Any:
    """The server in whose loop this is called; None if it is not uvicorn's."""
    module = sys.modules.get("uvicorn.server")
    if module is None:
        return None
    for task in asyncio.all_tasks():
        waiting: Any = task.get_coro()
        while waiting is not None:  # the coroutine, what it awaits, what that awaits, …
            frame = getattr(waiting, "cr_frame", None)
            found = frame.f_locals.get("self") if frame is not None else None
            if issubclass(type(found), module.Server):  # looks at no attribute of what may be anything
                return found
            waiting = getattr(waiting, "cr_await", None)
    return None


def is_ending(server: Any) -> bool:
    """Whether it was told to stop, or has stopped listening by itself, as after `limit_max_requests`."""
    listeners = getattr(server, "servers", ())  # not there before it has begun
    return server.should_exit or (bool(listeners) and not any(one.is_serving() for one in listeners))
