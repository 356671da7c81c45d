"""Whether a process that ended is started again, over the whole table."""

import pytest

from yelpaze.policy.restart import Ending, Restart

KEEPS, GIVES_UP = Restart(), Restart(keeps_trying=False)


@pytest.mark.parametrize(
    ("served", "is_explained", "ending"),
    [
        (1.0, False, Ending.SOUND),
        (5.0, True, Ending.SOUND),
        (0.9, False, Ending.EARLY),
        (0.0, True, Ending.EARLY),
        (None, False, Ending.SILENT),
        (None, True, Ending.EXPLAINED),
    ],
)
def test_how_a_process_ended(served, is_explained, ending):
    assert KEEPS.ending(served, is_explained=is_explained) is ending


def test_failures_in_a_row_end_with_a_sound_process():
    assert KEEPS.failures_after(Ending.SOUND, 7) == 0
    for ending in (Ending.EARLY, Ending.SILENT, Ending.EXPLAINED):
        assert KEEPS.failures_after(ending, 7) == 8


@pytest.mark.parametrize("has_served", [False, True])
@pytest.mark.parametrize("rule", [KEEPS, GIVES_UP])
@pytest.mark.parametrize("ending", Ending)
def test_who_gives_up_and_when(ending, rule, has_served):
    pauses = [rule.pause_after(ending, n, has_served=has_served) for n in (1, 2, 3, 4)]
    keeps = ending in (Ending.SOUND, Ending.EARLY) or (has_served and rule.keeps_trying)
    if keeps:
        assert pauses == [0, 0.2, 0.4, 0.8]
    elif ending is Ending.EXPLAINED:
        assert pauses == [None] * 4
    else:
        assert pauses == [0, 0.2, None, None]


def test_pauses_grow_up_to_a_bound():
    assert Restart(pause=1, cap=60).pause_after(Ending.EARLY, 5, has_served=True) == 8
    assert KEEPS.pause_after(Ending.EARLY, 7, has_served=True) == 6.4
    assert KEEPS.pause_after(Ending.EARLY, 8, has_served=True) == 10
    assert KEEPS.pause_after(Ending.EARLY, 10_000, has_served=True) == 10
