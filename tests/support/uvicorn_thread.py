"""uvicorn in a thread of this process, where it hears no signals."""

import threading
from typing import Any, Self

from support.nginx import free_port
from support.waiting import SECONDS, until


class UvicornThread:
    """Serves an application while inside; its end is `should_exit`, as programs set it."""

    def __init__(self, app: Any, **options: Any) -> None:
        import uvicorn

        self.port = free_port()
        config = uvicorn.Config(app, port=self.port, log_level="error", **options)
        self.server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self.server.started or not self._thread.is_alive())
        assert self.server.started
        return self

    def ended(self) -> bool:
        """Wait for its end; whether it came."""
        self._thread.join(SECONDS)
        return not self._thread.is_alive()

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        assert self.ended(), "uvicorn waits for connections that do not end"
