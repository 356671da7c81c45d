"""What centrifuge-js must be able to do with the gateway; run by Node and by a browser."""

import asyncio
import time

from support.live import SECONDS, token

CHAT = {
    "presence": True,
    "join_leave": True,
    "history_size": 100,
    "history_ttl": "5m",
    "force_recovery": True,
    "allow_subscribe_for_client": True,
    "allow_publish_for_subscriber": True,
    "allow_presence_for_subscriber": True,
    "allow_history_for_subscriber": True,
}
CONFIG = {
    "client": {"allowed_origins": ["*"], "expired_close_delay": "1s"},
    "channel": {"namespaces": [{"name": "chat", **CHAT}, {"name": "closed", "force_recovery": False}]},
}


class JsClient:
    """One client. Its events are kept until somebody waits for them."""

    def __init__(self) -> None:
        self._events = []
        self._came = asyncio.Condition()

    async def act(self, name, **options):
        """Do something; its result."""
        raise NotImplementedError

    async def heard(self, event) -> None:
        async with self._came:
            self._events.append(event)
            self._came.notify_all()

    async def until(self, event, of="", **match):
        """The next such event; others stay."""

        def found():
            fits = {"event": event, "of": of, **match}.items()
            return next(
                (one for one in self._events if all(one.get(name) == value for name, value in fits)), None
            )

        async with self._came:
            try:
                one = await asyncio.wait_for(self._came.wait_for(found), SECONDS)
            except TimeoutError:
                raise AssertionError(f"no {event} of {of!r} {match} in {self._events}") from None
            self._events.remove(one)
        return one

    async def connected(self, url, **options):
        """Connect to a gateway."""
        await self.act("connect", url=f"{url}/connection/websocket", **options)
        await self.until("connecting")
        return await self.until("connected")

    async def subscribed(self, channel, **options):
        """Subscribe to a channel."""
        await self.act("subscribe", channel=channel, **options)
        return await self.until("subscribed", channel)

    async def data(self, channel, count):
        """The data of so many publications."""
        return [(await self.until("publication", channel))["data"] for _ in range(count)]


async def value_of(deed):
    result = await deed
    assert "refused" not in result, result
    return result["value"]


async def refusal_of(deed):
    return (await deed)["refused"]


class CentrifugeJs:
    """The tests. `js` is a factory of clients, `gateways` one of gateways."""

    async def test_what_one_publishes_the_others_get(self, js, gateways):
        gateway = gateways(CONFIG)
        ada, bob = await js(), await js()
        told = await ada.connected(gateway.ws, token=token("ada"))
        assert told["transport"] == "websocket"
        await bob.connected(gateway.ws, token=token("bob"))
        await ada.subscribed("chat:1", joinLeave=True)
        await bob.subscribed("chat:1")
        assert (await ada.until("join", "chat:1", channel="chat:1"))["info"]["user"] in ("ada", "bob")
        for text in ("Merhaba", "line\nbreak", "☕ 👋🏽", ""):
            await value_of(bob.act("publish", channel="chat:1", data={"text": text}))
            for one in (ada, bob):
                got = await one.until("publication", "chat:1")
                assert (got["data"], got["info"]["user"]) == ({"text": text}, "bob")
        there = (await value_of(ada.act("presence", channel="chat:1")))["clients"]
        assert {info["user"] for info in there.values()} == {"ada", "bob"}
        assert await value_of(ada.act("presenceStats", channel="chat:1")) == {"numClients": 2, "numUsers": 2}
        kept = await value_of(ada.act("history", channel="chat:1", limit=2))
        assert [one["data"]["text"] for one in kept["publications"]] == ["Merhaba", "line\nbreak"]
        await bob.act("unsubscribe", channel="chat:1")
        assert (await ada.until("leave", "chat:1"))["info"]["user"] == "bob"
        assert await refusal_of(bob.act("publish", channel="chat:1", data=1)) == 103
        assert await refusal_of(bob.act("rpc", method="nothing", data={})) == 108

    async def test_what_is_refused_is_told_and_not_tried_for_ever(self, js, gateways):
        gateway = gateways(CONFIG)
        client = await js()
        await client.act("connect", url=f"{gateway.ws}/connection/websocket", token="no token at all")
        assert (await client.until("disconnected"))["code"] == 3500
        client = await js()
        await client.connected(gateway.ws, token=token("ada"))
        await client.act("subscribe", channel="closed:1")
        assert (await client.until("unsubscribed", "closed:1"))["code"] == 103
        await client.act("subscribe", channel="nowhere:1")
        assert (await client.until("unsubscribed", "nowhere:1"))["code"] == 102

    async def test_the_server_takes_out_and_disconnects(self, js, gateways):
        gateway = gateways(CONFIG)
        client = await js()
        await client.connected(gateway.ws, token=token("ada"))
        await client.subscribed("chat:1")
        gateway.api("unsubscribe", user="ada", channel="chat:1")
        assert (await client.until("unsubscribed", "chat:1"))["code"] == 2000
        gateway.api("subscribe", user="ada", channel="chat:own")
        assert (await client.until("subscribed", "", channel="chat:own"))["recoverable"]
        gateway.publish("chat:own", {"n": 1})
        assert (await client.until("publication", "", channel="chat:own"))["data"] == {"n": 1}
        gateway.api("disconnect", user="ada", disconnect={"code": 4501, "reason": "enough"})
        ended = await client.until("disconnected")
        assert (ended["code"], ended["reason"]) == (4501, "enough")

    async def test_nothing_is_lost_when_a_node_is_killed(self, js, gateways, redis):
        """What is published meanwhile, by another node, comes when the node is back."""
        flags = ("--broker", redis.url)
        here, other = gateways(CONFIG, *flags), gateways(CONFIG, *flags)
        client = await js()
        await client.connected(here.ws, token=token("ada"))
        await client.subscribed("chat:killed")
        other.publish("chat:killed", 1)
        assert await client.data("chat:killed", 1) == [1]
        here.kill()
        await client.until("connecting")
        for number in (2, 3, 4):
            other.publish("chat:killed", number)
        await asyncio.to_thread(here.start)
        # Publications come with the subscription, before or after it is told.
        again = await client.until("subscribed", "chat:killed")
        assert again["wasRecovering"]
        assert again["recovered"]
        assert await client.data("chat:killed", 3) == [2, 3, 4]
        other.publish("chat:killed", 5)
        assert await client.data("chat:killed", 1) == [5]

    async def test_a_node_that_stops_sends_its_clients_elsewhere(self, js, gateways):
        gateway = gateways(CONFIG)
        client = await js()
        await client.connected(gateway.ws, token=token("ada"))
        await client.subscribed("chat:1")
        await asyncio.to_thread(gateway.stop)
        assert (await client.until("connecting"))["code"] == 3001
        await asyncio.to_thread(gateway.start)
        await client.until("connected")
        again = await client.until("subscribed", "chat:1")
        assert (again["wasRecovering"], again["recovered"]) == (True, False)  # its history was in memory
        gateway.publish("chat:1", "anew")
        assert await client.data("chat:1", 1) == ["anew"]

    async def test_tokens_are_refreshed(self, js, gateways):
        gateway = gateways(CONFIG)
        client = await js()
        now = int(time.time())
        old, soon, late = token("ada", exp=now - 1), token("ada", exp=now + 2), token("ada", exp=now + 3600)
        # The first has expired, the second does soon.
        await client.connected(gateway.ws, token=old, tokens=[soon, late])
        await client.until("token")
        first = token("ada", channel="closed:1", exp=now + 2)
        rest = [token("ada", channel="closed:1", exp=now + 3600)]
        await client.act("subscribe", channel="closed:1", token=first, tokens=rest)
        await client.until("subscribed", "closed:1")
        for of in ("", "closed:1"):
            await client.until("token", of)
        # Commands are done in order: this one after both refreshes.
        assert await refusal_of(client.act("presence", channel="closed:1")) == 103
        gateway.publish("closed:1", "still there")
        assert await client.data("closed:1", 1) == ["still there"]
