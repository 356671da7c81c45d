"""The contract of leases: a shard has one owner in an epoch, shares are fair, and nobody strands a shard."""

import contextlib
import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yelpaze.store.leases import LEASES, Leases
from yelpaze.store.migrations import migrate
from yelpaze.store.opening import connect_to, is_postgres, open_store
from yelpaze.store.sqlite import SqliteConnection

SECONDS = 15.0
COUNT = 8


class Clock:
    """The clock of the database, in seconds."""

    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


class Machine:
    """Processes that share a database, and its clock."""

    def __init__(self, name, clock=None):
        self.clock = clock or Clock()
        self._name = name
        self._connections = []
        self.connection = self.connect()
        migrate(self.connection, [LEASES], name)

    def connect(self):
        """A connection by the test's clock."""
        if is_postgres(self._name):
            connection = connect_to(self._name)
            connection.lease_time = lambda: int(self.clock() * 1000)
        else:
            connection = SqliteConnection(self._name, clock=self.clock)
        self._connections.append(connection)
        return connection

    def join(self, owner, *, count=COUNT, name="work", connection=None, seconds=SECONDS):
        return Process(connection or self.connection, Leases(name, count, owner, seconds))

    def close(self):
        for connection in self._connections:
            connection.close()


class Process:
    """An owner of shards, and what it believes to hold."""

    def __init__(self, connection, leases):
        self.connection = connection
        self.leases = leases
        self.epochs = {}
        self.leaving = ()

    def _transaction(self, work, *arguments, **options):
        self.connection.begin()
        try:
            value = work(self.connection, *arguments, **options)
        except BaseException:
            self.connection.roll_back()
            raise
        self.connection.commit()
        return value

    def renew(self, idle=()):
        renewal = self._transaction(self.leases.renew, idle=idle)
        self.epochs, self.leaving = renewal.epochs, renewal.leaving
        return renewal

    def leave(self):
        """Renew, with nothing under way in what is to be left."""
        return self.renew(set(self.leaving))

    def held(self):
        """Those of the shards that it believes to hold in which it may write."""
        return self._transaction(self.leases.held, self.epochs)

    def release(self):
        self._transaction(self.leases.release)

    @property
    def shards(self):
        return set(self.epochs)


@pytest.fixture
def machine(store_name):
    machine = Machine(store_name)
    yield machine
    machine.close()


def settled(processes):
    """Let all renew, with nothing under way, until nothing changes any more; the sizes of their shares."""
    before, same = None, 0
    for _ in range(30):
        for process in processes:
            process.leave()
        now = [(process.shards, process.leaving) for process in processes]
        same = same + 1 if now == before else 0
        if same == 3:
            return sorted(len(process.shards) for process in processes)
        before = now
    raise AssertionError("it went on changing")


def all_of(processes):
    """The shards that are held, of all."""
    return sorted(itertools.chain(*(process.shards for process in processes)))


# ── shares ──────────────────────────────────────────────────────────────────────


def test_a_single_owner_gets_all_shards_and_keeps_their_epochs(machine):
    one = machine.join("a")
    first = one.renew()
    assert set(first.epochs) == set(range(COUNT))
    assert first.leaving == ()
    for _ in range(5):
        machine.clock.now += SECONDS / 3
        assert one.renew() == first
        assert one.held() == set(range(COUNT))


def test_an_owner_by_itself_keeps_shards_that_are_idle(machine):
    one = machine.join("a")
    one.renew()
    assert one.renew(idle=range(COUNT)).epochs.keys() == set(range(COUNT))


def test_a_second_owner_takes_what_the_first_has_been_told_to_leave_and_left_idle(machine):
    one, other = machine.join("a"), machine.join("b")
    one.renew()
    assert other.renew().epochs == {}
    told = one.renew()
    assert len(told.leaving) == COUNT // 2
    assert one.shards == set(range(COUNT))  # until it has ended what it does there
    assert other.renew().epochs == {}

    idle = set(told.leaving[:2])
    told = one.renew(idle)
    assert one.shards == set(range(COUNT)) - idle
    assert len(told.leaving) == COUNT // 2 - 2
    assert one.held() == one.shards
    assert set(other.renew().epochs) == idle

    one.renew(set(told.leaving))
    other.renew()
    assert one.leaving == other.leaving == ()
    assert (len(one.shards), len(other.shards)) == (COUNT // 2, COUNT // 2)
    assert all_of([one, other]) == list(range(COUNT))


def test_an_owner_gives_back_no_more_than_is_beyond_its_share(machine):
    one, other = machine.join("a"), machine.join("b")
    one.renew()
    other.renew()
    one.renew(idle=range(COUNT))
    assert len(one.shards) == COUNT // 2


@pytest.mark.parametrize("names", ["ab", "ba", "abc", "cab", "edcba", "abcdefghij"])
@pytest.mark.parametrize("count", [1, 7, 8])
def test_in_the_end_shares_differ_by_one_at_most(machine, names, count):
    processes = []
    for name in names:
        processes.append(machine.join(name, count=count))
        sizes = settled(processes)
        assert sizes[-1] - sizes[0] <= 1
        assert all_of(processes) == list(range(count))


def test_those_who_stay_take_what_one_who_left_has_given_back(machine):
    processes = [machine.join(name) for name in "abc"]
    settled(processes)
    gone = processes.pop(1)
    gone.release()
    assert settled(processes) == [4, 4]
    assert all_of(processes) == list(range(COUNT))
    assert gone.held() == set()


def test_what_is_released_is_taken_at_once_in_a_new_epoch(machine):
    one, other = machine.join("a"), machine.join("b")
    before = one.renew().epochs
    one.release()
    assert one.held() == set()
    after = other.renew().epochs
    assert after == {shard: epoch + 1 for shard, epoch in before.items()}


def test_an_owner_that_has_released_can_come_again(machine):
    one = machine.join("a")
    before = one.renew().epochs
    one.release()
    assert one.renew().epochs == {shard: epoch + 1 for shard, epoch in before.items()}


def test_releasing_what_others_have_taken_takes_nothing_from_them(machine):
    one, other = machine.join("a"), machine.join("b")
    one.renew()
    machine.clock.now += SECONDS + 1
    other.renew()
    one.release()
    assert other.held() == set(range(COUNT))


def test_leases_of_other_names_are_apart(machine):
    one, other = machine.join("a", name="work"), machine.join("a", name="play", count=3)
    one.renew()
    other.renew()
    other.release()
    assert one.held() == set(range(COUNT))
    assert other.renew().epochs.keys() == {0, 1, 2}


def test_shards_that_are_added_later_are_shared_too(machine):
    machine.join("a", count=3).renew()
    more = machine.join("a", count=6)
    assert more.renew().epochs.keys() == set(range(6))


# ── owners that go and come ─────────────────────────────────────────────────────


def test_an_owner_that_does_not_renew_loses_its_shards_after_that_time_and_not_before(machine):
    one, other = machine.join("a"), machine.join("b")
    before = one.renew().epochs
    machine.clock.now += SECONDS - 0.001
    assert one.held() == set(range(COUNT))
    assert other.renew().epochs == {}
    machine.clock.now += 0.001
    after = other.renew().epochs
    assert after == {shard: epoch + 1 for shard, epoch in before.items()}


def test_an_owner_that_was_frozen_is_refused_after_a_takeover_and_gets_its_share_again(machine):
    frozen, other = machine.join("a"), machine.join("b")
    frozen.renew()
    machine.clock.now += SECONDS + 1
    other.renew()
    assert frozen.held() == set()
    assert other.held() == set(range(COUNT))
    believed = frozen.epochs
    assert settled([frozen, other]) == [4, 4]
    assert not set(believed.items()) & {*frozen.epochs.items(), *other.epochs.items()}


def test_epochs_of_before_the_freeze_are_refused_although_the_shards_are_held_again(machine):
    frozen, other = machine.join("a"), machine.join("b")
    frozen.renew()
    old = frozen.epochs
    machine.clock.now += SECONDS + 1
    other.renew()
    other.release()
    frozen.renew()
    assert frozen.held() == set(range(COUNT))
    frozen.epochs = old
    assert frozen.held() == set()


def test_an_owner_whose_leases_have_ended_is_refused_even_if_nobody_has_taken_them(machine):
    one = machine.join("a")
    before = one.renew().epochs
    machine.clock.now += SECONDS
    assert one.held() == set()
    assert one.renew().epochs == {shard: epoch + 1 for shard, epoch in before.items()}


def test_an_owner_that_is_gone_counts_no_more(machine):
    one, other = machine.join("a"), machine.join("b")
    settled([one, other])
    machine.clock.now += SECONDS - 1
    one.renew()
    machine.clock.now += 2
    assert one.renew().epochs.keys() == set(range(COUNT))
    assert one.leaving == ()


def test_who_holds_nothing_is_asked_for_nothing(machine):
    assert machine.join("a").held() == set()


@pytest.mark.parametrize("now", [0.0, 3.0, 5000.0])
def test_a_clock_that_begins_anew_after_a_boot_blocks_no_shard(machine, now):
    before = [machine.join(name) for name in "ab"]
    settled(before)
    epochs = {**before[0].epochs, **before[1].epochs}
    machine.clock.now = now
    after = machine.join("c")
    after.renew()
    assert after.epochs == {shard: epoch + 1 for shard, epoch in epochs.items()}
    assert after.held() == set(range(COUNT))


def test_an_owner_that_has_the_same_name_after_a_boot_gets_and_keeps_the_shards(machine):
    machine.join("a").renew()
    machine.clock.now = 3.0
    after = machine.join("a")
    for _ in range(5):
        after.renew()
        assert after.held() == set(range(COUNT))
        machine.clock.now += SECONDS / 3
    machine.clock.now += SECONDS
    other = machine.join("b")
    assert other.renew().epochs.keys() == set(range(COUNT))


def test_a_clock_that_begins_anew_just_below_the_old_one_blocks_shards_for_the_time_of_a_lease_at_most(
    machine,
):
    machine.clock.now = 20.0
    machine.join("a").renew()
    machine.clock.now = 19.5
    after = machine.join("b")
    after.renew()
    machine.clock.now += SECONDS + 1
    assert after.renew().epochs.keys() == set(range(COUNT))


def test_owners_that_renew_at_the_same_time_share_no_shard(store_name):
    rounds, names = 200, "abcd"
    machine = Machine(store_name)
    barrier = threading.Barrier(len(names), action=lambda: setattr(machine.clock, "now", next(times)))
    times = iter(1_000_000.0 + step * rounds for step in range(rounds))  # now and then, leases end

    def run(process):
        seen = []
        try:
            for number in range(rounds):
                barrier.wait(60)
                if random.Random(f"{number}{process.leases.owner}").random() < 0.8:
                    for _ in range(9):
                        try:
                            process.leave()
                            break
                        except Exception as e:
                            print(str(e)[-120:])
                    seen.append(dict(process.epochs))
        except BaseException:
            barrier.abort()
            raise
        return seen

    processes = [machine.join(name, connection=machine.connect()) for name in names]
    with contextlib.closing(machine), ThreadPoolExecutor(len(names)) as pool:
        found = list(pool.map(run, processes))
        owners = {}
        for name, seen in zip(names, found, strict=True):
            for shard, epoch in itertools.chain(*(epochs.items() for epochs in seen)):
                assert owners.setdefault((shard, epoch), name) == name
        machine.clock.now += 1000
        print('OK')
        sizes = settled(processes)
        assert sizes == [2, 2, 2, 2]
        assert all_of(processes) == list(range(COUNT))


async def test_in_a_store_the_shards_of_an_owner_that_is_gone_are_taken_by_the_clock_of_the_database(
    store_name,
):
    async with open_store(store_name) as one, open_store(store_name) as other:
        gone, heir = Leases("work", COUNT, "a", 0.3), Leases("work", COUNT, "b", 0.3)
        first = await one.write(gone.renew)
        assert first.epochs.keys() == set(range(COUNT))
        taken = await other.write(heir.renew)
        while len(taken.epochs) < COUNT:
            taken = await other.write(heir.renew)
        assert taken.epochs.keys() == set(range(COUNT))
        assert all(taken.epochs[shard] > first.epochs[shard] for shard in range(COUNT))
        assert await one.write(lambda session: gone.held(session, first.epochs)) == set()


# ── whatever happens ────────────────────────────────────────────────────────────


class Owners:
    """Owners of whom each may renew, freeze, wake, release or be born again; what must never happen is checked."""

    def __init__(self, machine, count, names):
        self.machine = machine
        self.count = count
        self.names = names
        self.boots = 0
        self.owners = {}
        self.last = {}
        self.processes = {name: machine.join(name, count=count) for name in names}

    def renew(self, name, idle):
        process = self.processes[name]
        told = set(process.leaving)
        process.renew({"none": (), "some": set(list(told)[::2]), "told": told}[idle])
        for shard, epoch in process.epochs.items():
            owner = process.leases.owner
            assert self.owners.setdefault((shard, epoch), owner) == owner
            assert epoch >= self.last.get(shard, 0)
            self.last[shard] = epoch
        assert set(process.leaving) <= process.shards
        assert process.held() == process.shards

    def release(self, name):
        self.processes[name].release()

    def advance(self, seconds):
        self.machine.clock.now += seconds

    def boot(self, now):
        """All processes end, and the clock begins anew; only then can it go back."""
        self.boots += 1
        self.machine.clock.now = now
        for name in self.names:
            self.processes[name] = self.machine.join(f"{name}{self.boots}", count=self.count)

    def check(self):
        """Nobody may write where another may, nor where it does not believe to hold the shard."""
        held = [process.held() for process in self.processes.values()]
        assert all(
            ours <= process.shards for ours, process in zip(held, self.processes.values(), strict=True)
        )
        assert len(set().union(*held)) == sum(map(len, held))

    def check_end(self, names):
        """Those that are left share everything, whatever has happened before."""
        self.advance(2 * SECONDS + 1)
        alive = [self.processes[name] for name in names]
        sizes = settled(alive)
        assert sizes[-1] - sizes[0] <= 1
        assert all_of(alive) == list(range(self.count))


owner_names = st.sampled_from("abc")
steps = st.one_of(
    st.tuples(st.just("renew"), owner_names, st.sampled_from(["none", "some", "told"])),
    st.tuples(
        st.just("advance"), st.sampled_from([0.001, 1.0, SECONDS / 3, SECONDS - 0.001, SECONDS, 100.0])
    ),
    st.tuples(st.just("release"), owner_names),
    st.tuples(st.just("boot"), st.floats(0, 100)),
)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Names of empty databases."""
    folder = tmp_path_factory.mktemp("leases")
    return (str(folder / f"{number}.db") for number in itertools.count())


@given(st.integers(1, 5), st.lists(steps, max_size=40), st.sets(owner_names, min_size=1))
@settings(max_examples=60)
def test_no_two_owners_hold_a_shard_in_one_epoch_whatever_happens(numbered, count, todo, alive):
    with contextlib.closing(Machine(next(numbered), Clock(50.0))) as machine:
        owners = Owners(machine, count, "abc")
        for name, *arguments in todo:
            getattr(owners, name)(*arguments)
            owners.check()
        owners.check_end(sorted(alive))


@pytest.mark.parametrize("seed", range(4))
def test_no_two_owners_hold_a_shard_in_one_epoch_in_a_long_life(machine, seed):
    rng = random.Random(seed)
    names = "abcde"
    owners = Owners(machine, 12, names)
    for _ in range(150):
        what = rng.choices(["renew", "advance", "release", "boot"], [12, 6, 1, 0.3])[0]
        if what == "renew":
            owners.renew(rng.choice(names), rng.choice(["none", "some", "told"]))
        elif what == "advance":
            owners.advance(rng.choice([0.5, 3.0, SECONDS / 3, SECONDS]))
        elif what == "release":
            owners.release(rng.choice(names))
        else:
            owners.boot(rng.uniform(0, 200))
        owners.check()
    owners.check_end(rng.sample(names, 3))
