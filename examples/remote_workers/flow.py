"""Risk of loans: CPU work that other machines do.

On each machine that shall work:   yelpaze worker examples/remote_workers/flow.py --listen 10.0.0.5:50051
Where the run is:                  yelpaze run examples/remote_workers/flow.py loans.jsonl --workers grpc://10.0.0.5:50051
"""

import random

import msgspec

from yelpaze import Flow

PATHS = 200
MONTHS = 36

flow = Flow("loans")


class Loan(msgspec.Struct):
    id: int
    amount: float
    rate: float  # a year


class Risk(msgspec.Struct):
    id: int
    default: float  # the share of paths on which the borrower can't pay
    loss: float


@flow.compute(timeout=5)
def risk(row: Loan) -> Risk:
    """The same on every machine: the loan's number is the seed."""
    paths = random.Random(row.id)
    unpaid = [left for left in (owed_at_default(row, paths) for _ in range(PATHS)) if left > 0]
    return Risk(row.id, len(unpaid) / PATHS, round(sum(unpaid) / PATHS, 2))


def owed_at_default(loan: Loan, paths: random.Random) -> float:
    """What is lost on one path; 0 if all is paid back."""
    left, payment = loan.amount, monthly(loan.amount, loan.rate)
    for _ in range(MONTHS):
        if paths.random() < loan.rate / 60:
            return left
        left -= payment - left * loan.rate / 12
    return 0.0


def monthly(amount: float, rate: float) -> float:
    """The payment of each month. Not a step: programs call it by its name, `yelpaze.rpc.Functions`."""
    share = rate / 12
    return amount * share / (1 - (1 + share) ** -MONTHS)
