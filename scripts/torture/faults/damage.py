"""The output is removed, cut or edited: refused, until it is put back, or --restart is given."""

from life import Life
from promises import check

from faults.kill import kill


def damage(life):
    round_ = life.round
    if not round_.committed().rows:
        kill(life)
        return
    undo = round_.sink.spoil(round_)
    before = round_.files()
    life.start().wait()
    life.allowed = {2}
    said = life.words()
    check(life.code == 2, f"a damaged output was not refused: exit {life.code}: {said}")
    check("--restart" in said and "--accept-changed output" in said, f"what to do is not said: {said}")
    check(round_.files() == before, "a refused run has changed files")
    if life.rng.random() < 0.6:
        undo()
        return
    anew = Life(round_)
    anew.arguments, anew.is_new = ["--restart"], True
    anew.start().until_called()
    round_.begin_anew()
    if life.rng.random() < 0.5:
        anew.moment()
        anew.kill()
