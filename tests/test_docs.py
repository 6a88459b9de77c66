"""What the documents say is true: commands parse, links lead somewhere, every command is documented."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cloup
import pytest

from pi_dynn.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def command_lines(text: str) -> list[list[str]]:
    """Arguments of every `pi-dynn ...` in code blocks and code spans."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.S)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    lines = [line for block in blocks for line in block.splitlines()] + spans
    commands = []
    for line in lines:
        for part in line.split("#")[0].split("&&"):
            words = shlex.split(part)
            if words and words[0].rpartition("/")[2] == "pi-dynn":
                commands.append(words[1:])
    return commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page):
    for words in command_lines(page.read_text()):
        if not words or words[0].startswith("-"):
            continue
        name, *arguments = words
        assert name in COMMANDS, f"{page.name} names a command {name!r} that is not there"
        command = importlib.import_module(COMMANDS[name][0]).command
        if arguments:
            command.make_context(name, arguments)  # raises UsageError for an option that is not there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, heading in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        if target.startswith("http"):
            continue
        linked = page.parent / target if target else page
        assert linked.exists(), f"{page.name} links to {target}"
        if heading:
            assert heading in headings(linked), f"{page.name} links to {target}#{heading}"


def headings(page: Path) -> set[str]:
    """The names by which a page's headings are linked to."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_files_named_in_the_readme_are_there():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"(?:\./)?((?:scripts|benchmarks|tests|docs)/[\w/.]+\.(?:py|sh|md))", text):
        assert (ROOT / name).exists(), name


def test_the_documents_name_every_command():
    named = {words[0] for page in PAGES for words in command_lines(page.read_text()) if words}
    assert set(COMMANDS) <= named


def test_the_readme_is_short():
    """It is read in two minutes; what is longer has a page."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


def test_the_two_commands_are_those_ci_runs():
    text, script = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    for line in ("./scripts/setup.sh --dev", ".venv/bin/pi-dynn classify", ".venv/bin/python -m pytest -n 2"):
        assert line in text and line in script


def test_no_placeholder_is_left():
    for page in PAGES:
        assert "@@" not in page.read_text(), page.name


def test_the_site_builds(tmp_path):
    """Every page is in the navigation, and every name of the API reference is found."""
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Session" in (tmp_path / "api" / "index.html").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_an_example(name):
    command = importlib.import_module(COMMANDS[name][0]).command
    assert re.search(rf"pi-dynn {name}", command.help)


@pytest.mark.parametrize("name", ["classify", "evaluate", "energy", "learn", "watch"])
def test_long_lists_of_options_are_in_groups(name):
    command = importlib.import_module(COMMANDS[name][0]).command
    assert isinstance(command, cloup.Command) and len(command.option_groups) >= 4
