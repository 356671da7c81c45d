"""The supervisor with real processes that do what they are told."""

import asyncio
import os
import signal
import subprocess

import pytest

from support.child import Obedient
from support.waiting import until_true
from yelpaze.model.errors import StoppedError
from yelpaze.policy.restart import Restart
from yelpaze.process.replacement import RollingReplacement
from yelpaze.process.supervisor import Supervisor

QUICK = Restart(pause=0.01, cap=0.05, sound=0)


class Scene:
    """A supervisor over children whose orders are in a file."""

    def __init__(self, folder, count=1, rule=QUICK):
        self.orders = folder / "orders"
        self.notices, self.gone, self.broken = [], [], []
        self.order("ready")
        self.supervisor = Supervisor(
            lambda place: Obedient(place, self.orders),
            count,
            rule,
            report=self.notices.append,
            on_gone=lambda process, how, peak: self.gone.append((process, how, peak)),
            on_broken=self.broken.append,
        )

    def order(self, text):
        self.orders.write_text(text)

    def kinds(self):
        return [notice.kind for notice in self.notices]

    @property
    def pids(self):
        return {process.pid for process in self.supervisor.serving()}


@pytest.fixture
async def scene(tmp_path):
    scenes = []

    def new(**options):
        found = Scene(tmp_path, **options)
        scenes.append(found)
        return found

    yield new
    for one in scenes:
        await one.supervisor.kill()


async def test_all_start_and_drain(scene):
    here = scene(count=3)
    await here.supervisor.start()
    assert len(here.pids) == 3
    await here.supervisor.stop(60)
    assert [how for _, how, _ in here.gone] == ["exited with status 0"] * 3
    assert all(process.said == ["drained"] for process, _, _ in here.gone)
    assert all(peak > 1 for _, _, peak in here.gone)
    assert not here.supervisor.processes
    assert here.notices == []


async def test_a_start_that_says_why_it_fails_is_not_tried_again(scene):
    here = scene(count=2)
    here.order("fail")
    with pytest.raises(StoppedError, match="cannot start: the orders say so\na traceback"):
        await here.supervisor.start()
    assert here.broken == [here.supervisor.broken]
    assert not here.supervisor.processes


async def test_a_silent_failure_is_tried_three_times(scene):
    here = scene()
    here.order("exit")
    with pytest.raises(StoppedError, match="cannot start: exited with status 3"):
        await here.supervisor.start()
    assert len(here.gone) == 3
    assert here.kinds() == ["process.lost"] * 2


async def test_a_lost_process_is_started_again(scene):
    here = scene(count=2)
    await here.supervisor.start()
    before = here.pids
    lost = min(before)
    os.kill(lost, signal.SIGKILL)
    await until_true(lambda: len(here.pids - before) == 1 and len(here.pids) == 2)
    assert here.supervisor.restarts == {"crashed": 1}
    assert [notice.text for notice in here.notices] == [
        f"process {lost} was lost: killed by SIGKILL; a new one starts at once"
    ]


async def test_one_that_keeps_trying_waits_for_better_times(scene):
    here = scene()
    await here.supervisor.start()
    here.order("fail")
    os.kill(*here.pids, signal.SIGKILL)
    await until_true(lambda: here.supervisor.restarts["crashed"] >= 5)
    assert here.supervisor.broken is None
    here.order("ready")
    await until_true(lambda: here.pids)


async def test_one_that_gives_up_says_so_to_those_who_wait(scene):
    here = scene(rule=Restart(pause=0.01, sound=0, keeps_trying=False))
    await here.supervisor.start()
    here.order("fail")
    waiting = asyncio.ensure_future(here.supervisor.run())
    os.kill(*here.pids, signal.SIGKILL)
    with pytest.raises(StoppedError, match="the orders say so"):
        await waiting


async def test_a_start_that_the_system_refuses_costs_the_others_nothing(scene, monkeypatch):
    here = scene(count=3)
    await here.supervisor.start()
    before, refused = here.pids, []
    popen = subprocess.Popen

    def busy(*arguments, **options):
        monkeypatch.setattr(subprocess, "Popen", popen)
        refused.append(True)
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", busy)
    os.kill(min(before), signal.SIGKILL)
    await until_true(lambda: len(here.pids) == 3 and refused)
    assert len(here.pids & before) == 2
    assert here.supervisor.broken is None
    assert [how for _, how, _ in here.gone] == ["killed by SIGKILL", "could not be started"]
    assert "could not be started: [Errno 11]" in here.notices[-1].text


async def test_rolls_at_the_same_time_replace_each_process_once_or_twice(scene):
    here = scene(count=2)
    replacement = RollingReplacement(here.supervisor)
    await here.supervisor.start()
    before = here.pids
    await asyncio.gather(*(replacement.roll() for _ in range(4)))
    await until_true(lambda: len(here.supervisor.processes) == 2)
    assert sorted(process.place for process in here.supervisor.serving()) == [0, 1]
    assert here.pids.isdisjoint(before)
    assert here.supervisor.restarts == {"rolled": 4}  # the second roll is for what changed during the first


async def test_a_process_that_does_not_end_is_killed_after_a_while(scene):
    here = scene()
    here.order("ready deaf")
    await here.supervisor.start()
    await until_true(lambda: here.supervisor.processes[0].said == ["deaf"])
    await here.supervisor.stop(0.2)
    assert [how for _, how, _ in here.gone] == ["killed by SIGKILL"]


async def test_a_worn_process_works_until_its_replacement_does(scene):
    here = scene()
    replacement = RollingReplacement(here.supervisor, worn=lambda process, _: worn.get(process.pid))
    worn = {}
    await here.supervisor.start()
    replacement.open()
    (before,) = here.pids
    worn[before] = "age"
    lowest = 1

    def replaced():
        nonlocal lowest
        lowest = min(lowest, len(here.pids))
        return before not in here.pids and here.pids

    await until_true(replaced)
    assert lowest == 1
    assert here.supervisor.restarts == {"age": 1}
    assert here.kinds() == ["process.worn"]


async def test_one_whose_replacement_cannot_start_goes_on(scene):
    here = scene()
    replacement = RollingReplacement(here.supervisor)
    await here.supervisor.start()
    before = here.pids
    here.order("fail")
    await replacement.roll()
    assert here.pids == before
    assert here.kinds() == ["process.kept"]
    assert "could not be replaced and goes on: the orders say so" in here.notices[0].text
    here.order("ready")
    await replacement.roll()
    assert here.pids.isdisjoint(before)
    assert here.kinds()[1:] == ["process.replaced"]


async def test_a_process_lost_while_its_replacement_starts_needs_no_other(scene):
    here = scene()
    replacement = RollingReplacement(here.supervisor)
    await here.supervisor.start()
    here.order("")  # the next one is silent for now
    rolling = asyncio.ensure_future(replacement.roll())
    await until_true(lambda: len(here.supervisor.processes) == 2)
    old, new = here.supervisor.processes
    os.kill(old.pid, signal.SIGKILL)
    await until_true(lambda: old not in here.supervisor.processes)
    assert here.supervisor.processes == [new]
    os.kill(new.pid, signal.SIGKILL)  # and it never comes
    here.order("ready")
    await until_true(lambda: here.pids)
    await rolling
    assert len(here.supervisor.processes) == 1
