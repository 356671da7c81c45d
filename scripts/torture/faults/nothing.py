"""Nothing happens."""


def nothing(life):
    life.start()
