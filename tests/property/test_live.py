"""The gateway's parsers: whatever comes, in whatever pieces, they accept it or say what is wrong, and hold little."""

# ruff: noqa: PT017  what is drawn may be right or wrong, and both outcomes are looked at

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.live import frame as masked
from yelpaze.config.loader import load
from yelpaze.config.values import Duration
from yelpaze.live.config import Channel
from yelpaze.live.core.backlog import OVERHEAD, Backlog
from yelpaze.live.core.channels import ChannelRules
from yelpaze.live.core.stream import Joined
from yelpaze.live.core.wheel import Wheel
from yelpaze.live.protocol import encoding, frames
from yelpaze.live.protocol.codes import Failure, Refused
from yelpaze.live.protocol.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameReader,
)
from yelpaze.live.protocol.handshake import Rejected, Request, accept, check_origin, client_ip
from yelpaze.live.protocol.messages import Command, decode
from yelpaze.live.protocol.values import History, Position, Publication, on_one_line
from yelpaze.live.sessions.plain import position_of
from yelpaze.live.settings import LIVE
from yelpaze.live.transports.event_stream import opening
from yelpaze.model.errors import InputError

LIMIT = 1000

masks = st.binary(min_size=4, max_size=4)
payloads = st.one_of(
    st.tuples(st.just(TEXT), st.text(max_size=300).map(str.encode)),
    st.tuples(st.just(BINARY), st.binary(max_size=LIMIT)),
)


@st.composite
def conversations(draw):
    """Messages with control frames between their fragments: the bytes, and what a reader must make of them."""
    sent, expected = b"", []
    for opcode, payload in draw(st.lists(payloads, max_size=5)):
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
        parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for number, part in enumerate(parts):
            for kind, data in draw(
                st.lists(st.tuples(st.sampled_from((PING, PONG)), st.binary(max_size=125)), max_size=1)
            ):
                sent += masked(kind, data, mask=draw(masks))
                expected.append((kind, data))
            is_last = number == len(parts) - 1
            sent += masked(opcode if number == 0 else CONTINUATION, part, fin=is_last, mask=draw(masks))
        expected.append((opcode, payload))
    return sent, expected


def read(reader, pieces):
    found = []
    for piece in pieces:
        found += reader.feed(piece)
    return found


@st.composite
def pieces_of(draw, data):
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(st.data(), conversations())
def test_any_split_of_any_frames_gives_the_same_messages(data, conversation):
    sent, expected = conversation
    reader = FrameReader(LIMIT)
    assert read(reader, data.draw(pieces_of(sent))) == expected
    assert reader.is_idle


@given(conversations())
@settings(max_examples=30)
def test_a_byte_at_a_time_gives_the_same_messages(conversation):
    sent, expected = conversation
    assert read(FrameReader(LIMIT), [bytes([byte]) for byte in sent]) == expected


heads = st.binary(max_size=14)
soup = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(
            masked,
            st.integers(0, 15),
            st.binary(max_size=200),
            fin=st.booleans(),
            mask=st.none() | masks,
        ),
    ),
    max_size=8,
)


@given(soup)
@settings(max_examples=400)
def test_any_bytes_give_messages_or_a_frame_error_and_little_is_kept(pieces):
    reader = FrameReader(LIMIT)
    for piece in pieces:
        try:
            for opcode, payload in reader.feed(piece):
                assert len(payload) <= LIMIT
                if opcode == TEXT:
                    payload.decode()
        except FrameError as error:
            assert error.code in (1002, 1007, 1009)
            assert list(reader.feed(b"x" * 100_000)) == []
            assert held(reader) == 0
            return
        assert held(reader) <= LIMIT + 14 + LIMIT


def held(reader):
    return len(reader._rest) + sum(map(len, reader._fragments or ()))


@given(st.integers(0, 15), st.integers(LIMIT + 1, (1 << 63) - 1))
def test_a_head_that_announces_too_much_is_refused_before_anything_is_kept(opcode, size):
    head = bytes([0x80 | opcode, 0xFF]) + size.to_bytes(8, "big")
    with pytest.raises(FrameError) as caught:
        list(FrameReader(LIMIT).feed(head))
    assert caught.value.code == (1009 if opcode in (TEXT, BINARY) else 1002)


@given(st.binary(max_size=130))
def test_a_close_frame_has_a_code_or_breaks_the_protocol(payload):
    try:
        code = frames.close_code(payload)
    except FrameError as error:
        assert error.code in (1002, 1007)
    else:
        assert code == 1005 or int.from_bytes(payload[:2], "big") == code
        assert code not in (1004, 1006, 1015)
        assert 1000 <= code < 5000


@given(st.integers(3000, 4999), st.text(max_size=300))
def test_a_close_frame_fits_and_says_its_code(code, reason):
    sent = frames.close_frame(code, reason)
    assert sent[0] == 0x80 | CLOSE
    assert sent[1] == len(sent) - 2 <= 125
    assert frames.close_code(sent[2:]) == code
    assert reason.startswith(sent[4:].decode())


@given(st.sampled_from((TEXT, BINARY, PONG)), st.integers(0, 70_000))
@settings(max_examples=40)
def test_what_we_send_is_what_a_client_reads(opcode, size):
    payload = b"p" * size
    sent = frames.frame(opcode, payload)
    assert sent.endswith(payload)
    head = sent[: len(sent) - size]
    assert head[0] == 0x80 | opcode
    assert head[1] < 0x80
    assert len(head) == (2 if size <= 125 else 4 if size < 65_536 else 10)
    assert (int.from_bytes(head[2:], "big") if len(head) > 2 else head[1]) == size


# ── text and data ───────────────────────────────────────────────────────────────────

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
one_line = st.text(max_size=60).filter(lambda text: "\n" not in text and "\r" not in text)
texts = st.one_of(
    one_line,
    json_values.map(json.dumps),
    json_values.map(lambda value: f'  {json.dumps(value)} "'),
    st.sampled_from(
        ['"', '""', '"a', ' "a"', "1 2", "NaN", "-0", "1e999", '{"a":"\\ud800"}', "[" * 5000, "﻿1"]
    ),
)


@given(texts)
@settings(max_examples=400)
def test_the_text_of_the_data_of_a_text_is_that_text(text):
    data = encoding.data_of(text.encode())
    json.loads(bytes(data))
    assert encoding.text_of(Publication(data)) == text.encode()


@given(st.text(max_size=60))
def test_data_is_always_one_line_of_json(text):
    data = bytes(encoding.data_of(text.encode()))
    assert b"\n" not in data
    assert b"\r" not in data
    json.loads(data)


@given(json_values)
def test_json_on_one_line_is_the_same_json(value):
    text = json.dumps(value, indent=2).encode()
    made = bytes(on_one_line(msgspec.Raw(text)))
    assert b"\n" not in made
    assert json.loads(made) == value


def parsed(stream):
    """Server-sent events as a browser reads them (WHATWG HTML, section 9.2.6): id, event and data of each."""
    events, data, kind, last = [], [], "message", ""
    for line in stream.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                events.append((last, kind, "\n".join(data)))
            data, kind = [], "message"
        elif name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id":
            last = value
    return events


@given(st.lists(st.text(max_size=40).map(lambda text: text.replace("\x00", "")), min_size=1, max_size=4))
def test_events_carry_any_text_with_its_line_breaks(said):
    found = [Publication(msgspec.Raw(json.dumps(text).encode()), None, n) for n, text in enumerate(said, 1)]
    stream = encoding.publications(encoding.EVENTS, "news", found, "e1")
    lines = [text.replace("\r\n", "\n").replace("\r", "\n") for text in said]
    assert parsed(stream) == [(f"{n}:e1", "message", text) for n, text in enumerate(lines, 1)]


@given(
    st.booleans() | st.none(),
    st.lists(st.text("ab\n", max_size=5), max_size=3),
    st.sampled_from(("", "1:e0")),
)
def test_the_opening_of_a_stream_says_where_it_is_and_what_was_missed(recovered, said, last):
    end = 7 + len(said)
    missed = tuple(
        Publication(msgspec.Raw(json.dumps(text).encode()), None, n) for n, text in enumerate(said, 8)
    )
    joined = Joined(Position(end, "e1"), missed if recovered else (), recovered)
    stream = opening(joined, last, 1500)
    assert stream.startswith(b"retry: 1500\n")
    events = parsed(stream)
    is_told = bool(last) and not recovered
    assert [kind for _, kind, _ in events if kind == "missed"] == ["missed"] * is_told
    assert [text for _, kind, text in events if kind == "message"] == (said if recovered else [])
    assert parsed(stream + b"data: x\n\n")[-1][0] == f"{end}:e1"


@given(st.text(max_size=30) | st.from_regex(r"[0-9]{1,25}:[0-9a-f]{0,8}", fullmatch=True))
def test_a_last_event_id_is_a_place_or_nothing(text):
    found = position_of(text)
    assert found is None or (f"{found.offset}:{found.epoch}" == text.lstrip("0") or text.startswith("0"))
    assert found is None or 0 <= found.offset < 1 << 63


@given(
    st.integers(0, 6),
    st.lists(st.integers(1, 9), max_size=9),
    st.integers(0, 9),
    st.sampled_from(("", "a", "b")),
)
def test_nothing_is_missing_only_if_the_offsets_are_all_there(since, offsets, end, epoch):
    found = tuple(Publication(msgspec.Raw(b"1"), None, offset) for offset in offsets)
    is_whole = epoch in ("", "a") and since <= end and offsets == list(range(since + 1, end + 1))
    assert History(found, Position(end, "a")).has_all_since(Position(since, epoch)) == is_whole


# ── what clients send ───────────────────────────────────────────────────────────────


@given(
    st.one_of(
        st.binary(max_size=60),
        json_values.map(lambda value: json.dumps(value).encode()),
        st.dictionaries(
            st.sampled_from((*Command.__struct_fields__, "other")),
            st.one_of(
                json_values,
                st.dictionaries(
                    st.sampled_from(
                        ("channel", "token", "data", "offset", "since", "limit", "subs", "recover")
                    ),
                    json_values,
                ),
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
@settings(max_examples=400)
def test_any_bytes_are_a_command_or_no_json(line):
    try:
        command = decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    assert {name for name, _ in command.requests()} <= set(Command.__struct_fields__)
    if command.history is not None and command.history.since is not None:
        assert 0 <= command.history.since.offset < 1 << 63


headers = st.dictionaries(
    st.sampled_from(
        (
            "host",
            "upgrade",
            "connection",
            "origin",
            "sec-websocket-key",
            "sec-websocket-version",
            "sec-websocket-protocol",
        )
    ),
    st.text(st.characters(max_codepoint=255), max_size=20)
    | st.sampled_from(
        ("websocket", "Upgrade", "13", "dGhlIHNhbXBsZSBub25jZQ==", "centrifuge-json", "x", "http://x")
    ),
)


@given(headers, st.sampled_from(("GET", "POST")), st.sampled_from(("1.0", "1.1")))
@settings(max_examples=300)
def test_any_handshake_is_answered_or_refused(found, method, version):
    request = Request(method, "/", {}, found, version)
    try:
        answer = accept(request, ("centrifuge-json",))
        check_origin(request, ("https://*.example.com",))
    except Rejected as rejected:
        assert rejected.status in (400, 403, 405, 426)
        assert rejected.reason
    else:
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert answer.count(b"\r\n\r\n") == 1
        assert answer.endswith(b"\r\n\r\n")


@given(st.text("0123456789.,: abc", max_size=60))
def test_a_client_behind_no_proxy_of_ours_cannot_say_where_it_is(forwarded):
    assert client_ip("9.9.9.9", forwarded, ("10.0.0.1",)) == "9.9.9.9"


@given(st.lists(st.sampled_from(("10.0.0.1", "10.0.0.2", "1.1.1.1", "2.2.2.2")), max_size=6))
def test_the_last_address_that_is_none_of_our_proxies_counts(forwarded):
    trusted = ("10.0.0.1", "10.0.0.2")
    others = [address for address in forwarded if address not in trusted]
    found = client_ip("10.0.0.1", ", ".join(forwarded), trusted)
    assert found == (others[-1] if others else "10.0.0.1")


@given(st.text(max_size=40))
def test_any_name_of_a_channel_has_options_or_is_refused(name):
    rules = ChannelRules(Channel())
    try:
        rules.options(name)
    except Refused as error:
        assert isinstance(error.failure, Failure)
    else:
        assert 0 < len(name) <= 255
        assert "\n" not in name


# ── settings ────────────────────────────────────────────────────────────────────────


@given(st.text("0123456789.hmsd -e", max_size=10))
def test_a_text_is_a_duration_or_is_not(text):
    try:
        seconds = Duration.parse(text)
    except ValueError as error:
        assert "a duration is written" in str(error)
    else:
        assert 0 <= seconds < float("inf")


@given(
    st.dictionaries(
        st.sampled_from(("client", "channel", "http_api", "sse", "clientt", "", "a\nb")),
        json_values
        | st.dictionaries(
            st.sampled_from(("token", "ping_interval", "channel_limit", "namespaces", "key", "max_length")),
            json_values | st.lists(st.dictionaries(st.sampled_from(("name", "presence")), json_values)),
        ),
    )
)
@settings(max_examples=300)
def test_any_settings_are_a_configuration_or_one_setting_is_wrong(found):
    try:
        LIVE.of(found)
    except InputError as error:
        assert all(line.strip() for line in str(error).split("\n"))


names = st.sampled_from(
    ("CLIENT", "CLIENT__INSECURE", "CLIENT__TOKEN__ISSUER", "CLIENT__INSECURE__X", "", "__", "X")
)


@given(st.dictionaries(names.map("YELPAZE_LIVE__{}".format), st.text("a1,", max_size=4)))
def test_any_environment_is_settings_or_one_is_wrong(environment):
    try:
        load(LIVE, None, {}, environment)
    except InputError as error:
        assert all(line.startswith("YELPAZE_LIVE__") for line in str(error).split("\n"))


# ── the wheel, the backlog ──────────────────────────────────────────────────────────


class Sleeper:
    def __init__(self, wheel):
        self.wheel = wheel
        self.bucket = None
        self.due = None  # in ticks
        self.woken = []

    def wake(self):
        self.woken.append(self.wheel._now)
        self.due = None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("put", "put", "drop", "tick", "tick")), st.integers(0, 3), st.integers(0, 6)
        ),
        max_size=40,
    )
)
def test_a_wheel_wakes_each_once_when_it_is_due_and_none_that_was_dropped(steps):
    wheel = Wheel(1.0, lambda: 0.5)
    sleepers = [Sleeper(wheel) for _ in range(4)]
    now = 0
    for what, which, seconds in [*steps, *[("tick", 0, 0)] * 7]:
        sleeper = sleepers[which]
        if what == "put":
            wheel.put(sleeper, seconds)
            sleeper.due = now + max(1, seconds)
        elif what == "drop":
            wheel.drop(sleeper)
            sleeper.due = None
        else:
            now += 1
            expected = [one for one in sleepers if one.due == now]
            before = [len(one.woken) for one in sleepers]
            wheel.tick()
            for one, count in zip(sleepers, before, strict=True):
                assert one.woken[count:] == ([now] if one in expected else [])
        assert len(wheel) == sum(one.due is not None for one in sleepers)


class Written:
    """A transport that asks to pause after so many writes."""

    def __init__(self, backlog):
        self.backlog = backlog
        self.room = 0
        self.frames = []

    def write(self, data):
        self.frames.append(data)
        self.room -= 1
        if self.room <= 0:
            self.backlog.is_paused = True


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("reply", "close", "drop_oldest", "drop_oldest", "latest", "latest", "drain")),
            st.integers(0, 2),
            st.integers(1, 40),
        ),
        max_size=40,
    )
)
@settings(max_examples=300)
def test_a_backlog_keeps_what_its_policies_say_in_order_and_never_too_much(steps):
    limit = 1000
    overflows = []
    backlog = Backlog(limit, lambda: overflows.append(1))
    transport = Written(backlog)
    kept = []  # (number, policy, channel, size), as it must be
    for number, (what, which, size) in enumerate(steps):
        if what == "drain":
            transport.room, transport.frames = which + 1, []
            is_empty = backlog.drain(transport)
            expected, kept = kept[: which + 1], kept[which + 1 :]
            assert [frame[0] for frame in transport.frames] == [one[0] for one in expected]
            assert is_empty == (not kept and len(expected) < which + 1)
            backlog.is_paused = True
            continue
        channel = "" if what == "reply" else f"{what}{which}"
        policy = "close" if what == "reply" else what
        entry = number, policy, channel, size + OVERHEAD
        if policy == "latest" and any(one[2] == channel for one in kept):
            kept = [entry if one[2] == channel else one for one in kept]
        else:
            kept.append(entry)
        while sum(one[3] for one in kept) > limit and any(one[1] == "drop_oldest" for one in kept):
            kept.remove(next(one for one in kept if one[1] == "drop_oldest"))
        backlog.add((number,) * size, channel, policy)
        is_over = sum(one[3] for one in kept) > limit
        assert bool(overflows) == is_over
        assert len(backlog) == len(kept)
        if is_over:
            return


def test_a_backlog_counts_what_lies_in_lists():
    overflows = []
    backlog = Backlog(100 + OVERHEAD, lambda: overflows.append(1))
    backlog.add(["x" * 60], "a", "drop_oldest")
    backlog.add(["y" * 30, "z" * 30], "a", "drop_oldest")
    assert len(backlog) == 1
    backlog.add(["w" * 90], "b", "close")
    assert not overflows
    backlog.add(["w" * 90], "b", "close")
    assert overflows == [1]


def test_a_backlog_of_many_small_things_is_bounded_too():
    """A pong has two bytes, and what keeps it a hundred."""
    overflows = []
    backlog = Backlog(10_000, lambda: overflows.append(1))
    while not overflows:
        backlog.add(b"..")
    assert len(backlog) < 110


def test_what_was_dropped_leaves_nothing_behind():
    backlog = Backlog(10_000, lambda: None)
    backlog.add(b"a reply, which stays")
    for number in range(100_000):
        backlog.add(b"%d" % number, "news", "drop_oldest")
    assert len(backlog._entries) < 1000
    assert len(backlog) < 110
