"""Ids sort by time, and those of one process in the order in which they were made."""

import random

import pytest

from yelpaze.hooks.ids import Ids, id_at

DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
T = 1_800_000_000_000


class Now:
    def __init__(self, value=T):
        self.value = value

    def __call__(self):
        return self.value


class Extreme(random.Random):
    """Gives the largest number, or the smallest."""

    def __init__(self, bit):
        super().__init__(0)
        self._bit = bit

    def getrandbits(self, count):
        return (1 << count) - 1 if self._bit else 0


def number_of(made):
    """The number of an id, decoded by the alphabet of the ULID specification."""
    value = 0
    for digit in made.partition("_")[2]:
        value = value * 32 + DIGITS.index(digit)
    return value


def test_an_id_is_its_prefix_and_26_digits_that_tell_its_time():
    made = Ids(Now(), random.Random(1)).new("msg")
    prefix, _, digits = made.partition("_")
    assert (prefix, len(digits)) == ("msg", 26)
    assert set(digits) <= set(DIGITS)
    assert number_of(made) >> 80 == T


def test_the_time_of_the_specifications_example_is_encoded_as_there():
    assert id_at("a", 1_469_918_176_385) == "a_01aryz6s41" + "0" * 16  # github.com/ulid/javascript


def test_the_same_source_gives_the_same_ids():
    one, other = (Ids(Now(), random.Random(7)) for _ in range(2))
    assert [one.new("ep") for _ in range(5)] == [other.new("ep") for _ in range(5)]


@pytest.mark.parametrize(
    "rng", [random.Random(2), Extreme(0), Extreme(1)], ids=["random", "lowest", "highest"]
)
def test_ids_sort_in_the_order_in_which_they_were_made_however_the_clock_goes(rng):
    now, moves = Now(), random.Random(3)
    ids = Ids(now, rng)
    made = []
    for _ in range(5000):
        made.append(ids.new("msg"))
        now.value += moves.choice([0, 0, 0, 0, 1, 5, 1000, -1, -1000])
    assert made == sorted(set(made))
    assert {len(one) for one in made} == {30}


def test_ids_of_all_prefixes_are_made_in_one_order():
    ids = Ids(Now(), random.Random(4))
    numbers = [number_of(ids.new(prefix)) for prefix in ["msg", "ep", "app", "atmpt"] * 50]
    assert numbers == sorted(set(numbers))


def test_two_processes_make_different_ids_at_the_same_time():
    one, other = Ids(Now(), random.Random(5)), Ids(Now(), random.Random(6))
    assert not {one.new("msg") for _ in range(1000)} & {other.new("msg") for _ in range(1000)}


def test_the_smallest_id_of_a_time_parts_those_before_from_those_after():
    now = Now()
    ids = Ids(now, random.Random(8))
    before = [ids.new("msg") for _ in range(100)]
    now.value += 1
    after = [ids.new("msg") for _ in range(100)]
    assert id_at("msg", T) <= before[0]
    assert before[-1] < id_at("msg", T + 1) <= after[0]
    assert after[-1] < id_at("msg", T + 2)


def test_times_before_1970_give_the_smallest_id_of_all():
    assert id_at("msg", -5) == id_at("msg", 0) == "msg_" + "0" * 26
