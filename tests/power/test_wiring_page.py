"""The wiring page: its drawing exists and is well-formed, and what it names is there."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from pi_dynn.power import meter_names

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "wiring.md").read_text(encoding="utf-8")


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    for target in re.findall(r"`((?:scripts|calibration)/[\w./]+)", PAGE):
        assert (ROOT / target).exists(), target


def test_the_drawing_shows_the_pins_of_the_table():
    drawing = ElementTree.parse(ROOT / "docs" / "wiring.svg")
    text = " ".join("".join(node.itertext()) for node in drawing.iter("{http://www.w3.org/2000/svg}text"))
    for name, pin in re.findall(r"^\| (VCC|SDA|SCL|GND) \| pin (\d)", PAGE, re.MULTILINE):
        assert f"{name} to pin {pin}" in text


def test_it_names_every_real_meter():
    for name in set(meter_names()) - {"auto", "fake", "replay"}:
        assert f"`{name}`" in PAGE
