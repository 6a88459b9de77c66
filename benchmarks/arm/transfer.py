#!/usr/bin/env python3
"""The predictor on what it was not fitted to: the published latencies of GFNet on a Raspberry Pi 4.

    scripts/arm_emulation.sh setup
    python benchmarks/arm/transfer.py

They ran eagerly, in fp32 and presumably on one thread, at the stock clock of 1.5 GHz; the counts here are of the same
networks with this project's code.
"""

from pathlib import Path

import click

from pi_dynn.latency.boards import board_model
from pi_dynn.latency.emulated import guest_rows
from pi_dynn.text import milliseconds, table

CLOCK_HZ = 1.5e9
PUBLISHED_S = {  # network, image size, distilled: seconds an answer
    ("gfnet_12_384", 128, False): 0.3816,
    ("gfnet_12_384", 256, False): 1.14906,
    ("gfnet_12_192", 128, True): 0.1565,
    ("gfnet_12_192", 256, True): 0.496,
}


@click.command()
def main() -> None:
    """Print predicted beside published latencies."""
    model = board_model("pi4")
    guest = Path(__file__).resolve().parent / "guest_eager.py"
    networks = [f"{name}:{size}:{distilled:d}" for name, size, distilled in PUBLISHED_S]
    rows = []
    for ((name, size, distilled), published_s), row in zip(
        PUBLISHED_S.items(), guest_rows(model.board.core, ["--caches"], guest, networks), strict=True
    ):
        predicted_s = model.predict_s(row["counts"]) * model.board.clock_hz / CLOCK_HZ
        title = f"{name}{', distilled' if distilled else ''}, {size} px"
        error = f"{100 * (predicted_s / published_s - 1):+.0f} %"
        rows.append((title, milliseconds(predicted_s), milliseconds(published_s), error))
    click.echo(table(("network", "predicted", "published", "error"), rows, markdown=True))


if __name__ == "__main__":
    main()
