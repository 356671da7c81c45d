"""A worker process: read a batch, run its calls one after the other, answer each at once."""

from yelpaze.compute.handler import call, fault_of, load
from yelpaze.compute.protocol import EntryPoint, Fault, Refused
from yelpaze.process.frames import Unreadable, encode
from yelpaze.process.messages import Failed, Ready
from yelpaze.process.parenthood import Parent


def main(channel_fd: int, lifeline_fd: int) -> None:
    """Run until the parent closes the channel."""
    parent = Parent(channel_fd, lifeline_fd)
    messages = parent.messages()
    target: EntryPoint | None = next(messages, None)
    if target is None:  # stopped before there was any work
        return
    try:
        handler = load(target)
    except BaseException as error:  # noqa: BLE001  reported, then gone
        fault = fault_of(error)
        parent.send(Failed(fault.message, fault.traceback))
        return
    parent.send(Ready())
    send = parent.socket.sendall
    for batch in messages:
        if isinstance(batch, Unreadable):
            parent.send(Refused(batch.why))
            continue
        for number, function, payload in batch:
            send(_answer(number, *call(handler, function, payload)))


def _answer(number: int, value: object, fault: Fault | None) -> bytes:
    try:
        return encode((number, value, fault))
    except Exception as error:  # noqa: BLE001  pickling runs user code
        message = f"the value cannot be sent between processes: {type(error).__name__}: {error}"
        return encode((number, None, Fault("result", message)))
