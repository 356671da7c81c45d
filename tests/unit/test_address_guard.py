"""Which addresses are refused, whatever they are embedded in."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze import AddressGuard, Engine, MisuseError
from yelpaze.testing import MockTransport

GUARD = AddressGuard()
REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.1.2.3",
    "169.254.169.254",
    "169.254.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.170",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::",
    "::1",
    "::7f00:1",
    "::10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:10.1.2.3",
    "::ffff:169.254.169.254",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2002:a9fe:a9fe::",
    "64:ff9b::10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "::ffff:0:127.0.0.1",
    "::ffff:0:a00:1",
    "2606:4700::5efe:10.0.0.1",
    "2606:4700::200:5efe:7f00:1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
    "2001:db8::1",
    "2001:20::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fdff::1",
    "fe80::1",
    "fe80::1%eth0",
    "fe80::1%25eth0",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
TAKEN = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700::1",
    "2a00:1450::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
    "2400::1",
    "::ffff:0:8.8.8.8",
    "2606:4700::5efe:8.8.8.8",
]


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_refused(address):
    why = GUARD.refusal(address)
    assert why is not None
    assert why.startswith(f"{address} is ")


@pytest.mark.parametrize("address", TAKEN)
def test_what_is_not(address):
    assert GUARD.refusal(address) is None


@pytest.mark.parametrize("text", ["", "localhost", "010.0.0.1", "0x7f000001", "2130706433", "1.2.3", "::g"])
def test_what_is_no_address_is_refused(text):
    assert "is no address" in GUARD.refusal(text)


def test_what_is_allowed():
    guard = AddressGuard(allow=["10.20.0.0/16", "127.0.0.1", "fd00::/8"])
    for address in ("10.20.1.1", "127.0.0.1", "fd12::1", "::ffff:127.0.0.1", "64:ff9b::10.20.0.1"):
        assert guard.refusal(address) is None
    for address in ("10.21.0.1", "127.0.0.2", "fc00::1"):
        assert guard.refusal(address) is not None
    assert repr(guard) == "AddressGuard(allow=['10.20.0.0/16', '127.0.0.1', 'fd00::/8'])"


@given(st.ip_addresses())
def test_every_address_that_is_not_global_is_refused(address):
    if not address.is_global or address.is_multicast:
        assert GUARD.refusal(str(address)) is not None


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_judged_alike(address):
    number = int(address)
    for outer in (
        ipaddress.IPv6Address((0xFFFF << 32) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
    ):
        assert (GUARD.refusal(str(outer)) is None) == (GUARD.refusal(str(address)) is None)


@pytest.mark.parametrize("allow", [["10.0.0.1/8"], ["nowhere"], [""], "10.0.0.0/8", ["10.0.0.0/33"], 5])
def test_networks_that_make_no_sense_are_refused(allow):
    with pytest.raises(MisuseError, match="allow"):
        AddressGuard(allow=allow)


def test_a_guard_needs_to_see_the_address():
    with pytest.raises(MisuseError, match="proxy"):
        Engine(address_guard=AddressGuard(), proxy="http://proxy.test:3128")
    with pytest.raises(MisuseError, match="transport"):
        Engine(address_guard=AddressGuard(), transport=MockTransport())
    with pytest.raises(MisuseError, match="takes AddressGuard"):
        Engine(address_guard=True)
