"""What the tests of `pi-dynn train` share: a tiny network, quick runs, and how they are read."""

import json

from pi_dynn.models.gfnet import GFNetSize

TINY = GFNetSize(dim=8, depth=3)
QUICK = ("--epochs", 2, "--batch-size", 8, "--workers", 0, "--device", "cpu")
SEEN = ("--image-size", 16, "--warmup-epochs", 0.5)


def transfer(pi_dynn, data, out, *more):
    return pi_dynn("train", "transfer", "--data", data, "--model", "tiny", "--out", out, *SEEN, *QUICK, *more)


def last_line(outcome):
    assert outcome.status == 0, outcome.err
    return json.loads(outcome.out.splitlines()[-1])
