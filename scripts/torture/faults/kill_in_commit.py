"""SIGKILL while a commit is made."""


def kill_in_commit(life):
    life.start().until_commit()
    life.kill()
