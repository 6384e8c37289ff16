"""The help screens: which commands are shown in which order, and that each says what it does in plain words."""

import re

import pytest
import typer.main

from cli.in_process import run_here
from hourllava.cli.main import app

COMMAND = typer.main.get_command(app)


def screens(command, path=()):
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from screens(below, (*path, name))


SCREENS = dict(screens(COMMAND))


def shown_commands(screen):
    """Headings of a screen, each with the commands below it."""
    found = {}
    for line in screen.splitlines():
        if heading := re.match(r"╭─ (.*?) ─", line):
            below = found.setdefault(heading[1], [])
        elif name := re.match(r"│ (\w+) ", line):
            below.append(name[1])
    return {heading: names for heading, names in found.items() if names}


def test_commands_are_shown_by_the_way_of_the_work():
    assert shown_commands(run_here("--help").stdout) == {
        "Watch and ask": ["watch", "ask", "chat", "serve", "mcp", "demo"],
        "Prepare data, train, measure": ["data", "synth", "train", "eval", "export", "world"],
        "This installation": ["cache", "info", "version"],
    }
    assert shown_commands(run_here("data", "--help").stdout) == {
        "From raw files to training data": ["sources", "check", "prepare"],
        "The steps of prepare, one by one": ["group", "features", "shard", "merge", "lengths", "verify"],
        "Look at a data set": ["stats", "show"],
    }


@pytest.mark.parametrize("path", SCREENS, ids=" ".join)
def test_every_screen_has_a_sentence_and_words_for_each_option(path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command = SCREENS[path]
    first, *_ = command.help.split("\n\n")
    assert re.fullmatch(r"[A-Z][^\n]{10,76}\.", first), first
    for parameter in command.params:
        words = parameter.help or ""
        assert re.fullmatch(r"[\w/].*[.]", words, flags=re.DOTALL), f"{parameter.name}: {words}"
    ended = run_here(*path, "--help")
    assert (ended.code, ended.stderr) == (0, "")
    assert max(map(len, ended.stdout.splitlines())) <= 80
    assert all(option in ended.stdout for parameter in command.params for option in parameter.opts if "-" in option)
