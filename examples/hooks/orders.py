"""An order system tells 50 customers' endpoints that an order is completed.

python examples/hooks/orders.py

Some answer late or with errors, one is silent, one says that it is gone. What has failed is tried again, and
what was given up is delivered once the endpoints are repaired. Everything runs on this machine.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from customers import COUNT, Customers, until

from yelpaze import Hooks
from yelpaze.hooks.values import MessageEndpointOut

# Seconds before each attempt. In earnest the default is right: from at once to a day.
SETTINGS = {"schedule": [0, 0.5, 1.0], "timeout": 1.0, "jitter": 0.1, "allow": ["127.0.0.0/8"]}


async def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Customers() as customers,
            Hooks(str(Path(folder) / "hooks.db"), settings=SETTINGS) as hooks,
        ):
            await hooks.create_application("Order system", uid="orders")
            for number in range(COUNT):
                name = f"customer-{number:02}"
                await hooks.create_endpoint(
                    "orders", f"{customers.url}/{number}", uid=name, event_types=["order.completed"]
                )
                customers.secrets[number] = await hooks.secret("orders", name)

            began, since = time.perf_counter(), hooks.now()
            order = {"type": "order.completed", "data": {"order": 4711, "total": "129.90"}}
            sent = await hooks.send("orders", "order.completed", order, event_id="order-4711")
            took = (time.perf_counter() - began) * 1000
            print(f"accepted {sent.id} in {took:.0f} ms: it is on disk")

            await until(lambda: customers.count(sent.id) >= COUNT - 10, 5)
            await report(hooks, customers, sent.id, "at once")
            while any(one.status_text == "pending" for one in await hooks.destinations("orders", sent.id)):
                await asyncio.sleep(0.1)
            await report(hooks, customers, sent.id, "after all attempts")

            print("\nThe customers repair their endpoints, and get what they have missed:")
            customers.are_repaired = True
            await hooks.update_endpoint("orders", "customer-49", disabled=False)
            for number in range(45, COUNT):
                count = await hooks.recover("orders", f"customer-{number}", since)
                print(f"  customer-{number}: {count} message is queued again")
            await until(lambda: customers.count(sent.id) == COUNT, 10)
            await report(hooks, customers, sent.id, "in the end")
            return 0 if customers.count(sent.id) == COUNT else 1


async def report(hooks: Hooks, customers: Customers, message_id: str, when: str) -> None:
    """How many arrived, which failed and why, and what is tried again when."""
    print(f"\n{when}: {customers.count(message_id)} of {COUNT} arrived")
    for endpoint in await hooks.destinations("orders", message_id):
        if endpoint.status_text != "success":
            print(f"  {endpoint.uid}  {endpoint.status_text:<8} {await why(hooks, message_id, endpoint)}")


async def why(hooks: Hooks, message_id: str, endpoint: MessageEndpointOut) -> str:
    """The last failure, and when it is tried again."""
    attempts = await hooks.attempts("orders", message=message_id, endpoint=endpoint.id)
    if not attempts:
        return "the first attempt is under way"
    count = "1 attempt" if len(attempts) == 1 else f"{len(attempts)} attempts"
    reason = f"after {count}: {attempts[0].reason}"
    if endpoint.next_attempt is None:
        return f"{reason}; given up"
    seconds = (endpoint.next_attempt - hooks.now()).total_seconds()
    return f"{reason}; queued again, in {seconds:.1f} s" if seconds > 0 else f"{reason}; under way again"


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
