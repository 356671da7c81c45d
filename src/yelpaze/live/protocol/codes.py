"""What a client is told when something is refused or ends, as Centrifugo's clients understand it.

Each number says what the client does next:

    error           the command failed; `temporary` ones may be tried again
    unsubscribed    below 2500 for good, from 2500 on the client subscribes again
    disconnected    3000-3499 the client connects again, 3500-3999 it does not

Other close codes are RFC 6455's (section 7.4.1), and 4001, which tells a plain client that its token is bad.
"""

from typing import Final

import msgspec


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a command failed."""

    code: int
    message: str
    temporary: bool = False


class Ending(msgspec.Struct, frozen=True):
    """Why a connection or a subscription ends."""

    code: int
    reason: str

    @property
    def is_final(self) -> bool:
        """Whether a Centrifugo client stays away."""
        return 3500 <= self.code < 4000 or self.code >= 4500  # noqa: PLR2004  the ranges above


INTERNAL: Final = Failure(100, "internal server error", temporary=True)
UNKNOWN_CHANNEL: Final = Failure(102, "unknown channel")
PERMISSION_DENIED: Final = Failure(103, "permission denied")
METHOD_NOT_FOUND: Final = Failure(104, "method not found")
ALREADY_SUBSCRIBED: Final = Failure(105, "already subscribed")
LIMIT_EXCEEDED: Final = Failure(106, "limit exceeded")
BAD_REQUEST: Final = Failure(107, "bad request")
NOT_AVAILABLE: Final = Failure(108, "not available")
TOKEN_EXPIRED: Final = Failure(109, "token expired")
UNRECOVERABLE_POSITION: Final = Failure(112, "unrecoverable position")

UNSUBSCRIBED_BY_SERVER: Final = Ending(2000, "server unsubscribe")
UNSUBSCRIBED_INSUFFICIENT: Final = Ending(2500, "insufficient state")
UNSUBSCRIBED_EXPIRED: Final = Ending(2501, "subscription expired")

SHUTDOWN: Final = Ending(3001, "shutdown")
SERVER_ERROR: Final = Ending(3004, "internal server error")
CONNECTION_EXPIRED: Final = Ending(3005, "connection expired")
SUBSCRIPTION_EXPIRED: Final = Ending(3006, "subscription expired")
SLOW: Final = Ending(3008, "slow")
INSUFFICIENT_STATE: Final = Ending(3010, "insufficient state")
NO_PONG: Final = Ending(3012, "no pong")
INVALID_TOKEN: Final = Ending(3500, "invalid token")
NO_TOKEN: Final = Ending(3500, "no token")
BAD_COMMAND: Final = Ending(3501, "bad request")
STALE: Final = Ending(3502, "stale")
FORCE_DISCONNECT: Final = Ending(3503, "force disconnect")
CONNECTION_LIMIT: Final = Ending(3504, "connection limit")
DENIED: Final = Ending(3507, "permission denied")
NO_MESSAGES: Final = Ending(3508, "not available")

BAD_TOKEN: Final = Ending(4001, "bad token")

NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
UNSUPPORTED_DATA: Final = 1003
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009
WENT_AWAY: Final = 1006  # never sent: the connection was lost


class Refused(Exception):  # noqa: N818  the client is refused; nothing of ours failed
    """A command is answered with a failure."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


class Ended(Exception):  # noqa: N818  likewise
    """The connection ends."""

    def __init__(self, ending: Ending) -> None:
        self.ending = ending
        super().__init__(ending.reason)
