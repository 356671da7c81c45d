"""A container's CPU quota counts as cores."""

import os

import pytest

from yelpaze.model import cores
from yelpaze.model.cores import cpu_quota, usable_cores

V1 = "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n"
NO_LIMIT = float("inf")


def written(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "own", "quota"),
    [
        ({}, "0::/\n", NO_LIMIT),
        ({"cpu.max": "max 100000\n"}, "0::/\n", NO_LIMIT),
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5),
        ({"cpu.max": "100000 100000\n"}, "0::/not/mounted/here\n", 1),
        ({"a/cpu.max": "100000 100000", "a/b/cpu.max": "400000 100000"}, "0::/a/b\n", 1),
        ({"a/cpu.max": "max 100000", "a/b/cpu.max": "50000 100000"}, "0::/a/b\n", 0.5),
        ({"cpu.max": "200000 100000\n"}, "0::/../outside\n", 2),
        ({"cpu.max": "200000 100000\n"}, "", 2),
        ({"cpu.max": "nonsense"}, "0::/\n", NO_LIMIT),
        ({"cpu.max": "1 0"}, "0::/\n", NO_LIMIT),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, V1, NO_LIMIT),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, V1, 3),
        (
            {
                "cpu,cpuacct/docker/x/cpu.cfs_quota_us": "250000",
                "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000",
            },
            V1,
            2.5,
        ),
    ],
    ids=range(13),
)
def test_the_quota_of_control_groups(tmp_path, files, own, quota):
    assert cpu_quota(written(tmp_path, files), own) == quota


@pytest.mark.parametrize(("quota", "found"), [(NO_LIMIT, 8), (100, 8), (2, 2), (1.5, 2), (0.1, 1)])
def test_cores_are_those_allowed_and_paid_for(monkeypatch, quota, found):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "cpu_quota", lambda *_: quota)
    assert usable_cores() == found
