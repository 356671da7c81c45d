"""A worker process: read a batch, run its calls one after the other, answer each at once."""

from yelpaze.compute.handler import call, fault_of, load
from yelpaze.compute.protocol import EntryPoint, Fault, UnreadableBatch
from yelpaze.model.errors import YelpazeError
from yelpaze.process.frames import Unreadable, encode
from yelpaze.process.messages import Failed, Ready
from yelpaze.process.parenthood import Parent, loading


def main(channel_fd: int, lifeline_fd: int) -> None:
    """Run until the parent closes the channel."""
    parent = Parent(channel_fd, lifeline_fd)
    messages = parent.messages()
    target: EntryPoint | None = next(messages, None)
    if target is None:  # stopped before there was any work
        return
    try:
        with loading():
            handler = load(target)
    except YelpazeError as error:  # its message says all
        parent.send(Failed(str(error)))
        return
    except BaseException as error:  # noqa: BLE001  reported, then gone
        fault = fault_of(error)
        parent.send(Failed(fault.message, fault.traceback))
        return
    parent.send(Ready())
    send = parent.socket.sendall
    for batch in messages:
        if isinstance(batch, Unreadable):
            parent.send(UnreadableBatch(batch.why))
            continue
        for number, function, payload in batch:
            send(_answer(number, *call(handler, function, payload)))


def _answer(number: int, value: object, fault: Fault | None) -> bytes:
    try:
        return encode((number, value, fault))
    except Exception as error:  # noqa: BLE001  pickling runs user code
        message = f"the value cannot be sent between processes: {type(error).__name__}: {error}"
        return encode((number, None, Fault("result", message)))
