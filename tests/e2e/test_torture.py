"""A shorter form of `make torture`: every fault for JSONL, and some of them for each other sink."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.needed import absent
from support.postgres import binary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(850)]
SCRIPT = Path(__file__).parents[2] / "scripts" / "torture"
KEPT = "every promise kept"
OTHERS = "kill,kill_in_commit,kill_in_the_end,full_disk,damage,retry,two_at_once"


def torture(*arguments):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--jobs", "2", *arguments], capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_fault_with_jsonl():
    assert KEPT in torture("--sinks", "jsonl", "--rounds", "16", "--seed", "1")


@pytest.mark.parametrize("sink", ["csv", "parquet", "sqlite"])
def test_faults_that_the_sink_has_to_answer_for(sink):
    assert KEPT in torture("--sinks", sink, "--faults", OTHERS, "--rounds", "7", "--seed", "1")


def test_faults_with_a_database_that_dies():
    if binary("postgres") is None:
        absent("PostgreSQL")
    faults = f"{OTHERS},database_dies"
    assert KEPT in torture("--sinks", "postgres", "--faults", faults, "--rounds", "7", "--seed", "1")
