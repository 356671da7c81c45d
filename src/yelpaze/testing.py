"""Test flows and calls without a network, in simulated time.

>>> from yelpaze import Flow, get
>>> flow = Flow("prices")
>>> @flow.request
... def price(row):
...     return get(f"https://shop.test/items/{row}")
>>> mock = MockTransport({"https://shop.test/items/*": lambda sent: {"url": sent.url}})
>>> results = run_simulated(flow.run([1, 2], engine={"transport": mock}))
>>> [result.value.json() for result in results]
[{'url': 'https://shop.test/items/1'}, {'url': 'https://shop.test/items/2'}]
"""

from yelpaze.http.mock_transport import MockTransport, NetworkFault, Reply, SentRequest
from yelpaze.http.simulated_time import SimulatedLoop, run_simulated

__all__ = ["MockTransport", "NetworkFault", "Reply", "SentRequest", "SimulatedLoop", "run_simulated"]
