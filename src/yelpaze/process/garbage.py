"""Garbage collection in processes that hold very many objects."""

import gc


def run_gc_less_often() -> None:
    """Run garbage collection less often.

    A full collection looks at everything that there is, such as each connection, and rarely finds anything to
    free.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
