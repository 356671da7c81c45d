"""Deliveries against receivers that misbehave, by a clock that the tests put forward."""

import asyncio
import json

import pytest

from support.hooks import attempts_of, endpoint_of, opened, states_of
from support.waiting import until_true
from yelpaze.hooks.signing import verify

pytestmark = pytest.mark.parametrize("adjustable", ["adjustable"], indirect=True)
