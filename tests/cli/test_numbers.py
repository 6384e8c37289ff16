"""Every numeric option of every command refuses what it cannot take, with one line that names the option."""

import inspect
import types
import typing

import pytest
import typer.main

from cli.in_process import error_line, run_here
from hourllava.cli.main import app
from hourllava.cli.options import MAX_SEED

LOWEST = {
    "captions": 0, "fps": 0.001, "history": 0, "images": 0, "max_cost": 0, "memory_share": 0, "multi_images": 0,
    "needles": 0, "port": 0, "seed": 0, "temperature": 0, "texts": 0,
}  # fmt: skip
"""The lowest value of options that need not be 1 or more."""

TOO_LARGE = [10**30, 99999999999999999999999, MAX_SEED + 1]
NO_NUMBERS = ["nan", "inf", "-inf", "", "one", "1e999"]


def leaves(typer_app, path=()):
    for command in typer_app.registered_commands:
        name = command.name or command.callback.__name__
        yield (*path, name), command.callback
    for group in typer_app.registered_groups:
        yield from leaves(group.typer_instance, (*path, group.name))


def numbers_in(annotation):
    """int or float of `Annotated[int | None, ...]` and the like; None for anything else."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    return annotation if annotation in (int, float) else None


OPTIONS = [
    (path, name, kind)
    for path, callback in leaves(app)
    for name, annotation in typing.get_type_hints(callback, include_extras=True).items()
    if (kind := numbers_in(annotation)) is not None
    and isinstance(typing.get_args(annotation)[1], typer.models.OptionInfo)
]


def required(path):
    """Words for what the command cannot be called without."""
    (callback,) = (callback for leaf, callback in leaves(app) if leaf == path)
    hints = typing.get_type_hints(callback, include_extras=True)
    words = []
    for name, parameter in inspect.signature(callback).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            is_option = isinstance(typing.get_args(hints[name])[1], typer.models.OptionInfo)
            word = "word" if numbers_in(hints[name]) is None else "0"
            words += [f"--{name}", word] if is_option else [word]
    return words


def test_there_are_numbers_in_most_commands():
    assert len(OPTIONS) > 30
    assert {"temperature", "seed", "fps", "minutes", "processes", "gpus"} <= {name for _, name, _ in OPTIONS}


@pytest.mark.parametrize(("path", "name", "kind"), OPTIONS, ids=lambda value: str(value).replace("'", ""))
def test_what_an_option_cannot_take_is_refused(path, name, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lowest = LOWEST.get(name, 1)
    too_small = [-1, -(10**30), *([0] if lowest > 0 else [])]
    option = f"--{name.replace('_', '-')}"
    for value in (*TOO_LARGE, *too_small, *NO_NUMBERS, *(["0.5"] if kind is int else [])):
        ended = run_here(*path, *required(path), option, value)
        words = f"{path} {option} {value}: {ended}"
        assert (ended.code, ended.stdout) == (2, ""), words
        assert option in ended.stderr, words
        if "Usage:" not in ended.stderr:  # Typer's own complaint shows the usage too
            assert ended.stderr.count("\n") == 1, words
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["watch", "x.mp4", "--from", "nan"], ["watch", "x.mp4", "--to", "1e999"],
        ["ask", "x.mp4", "?", "--from", "inf"],
        ["world", "make", "--out", "o", "--minutes", "nan"], ["world", "make", "--out", "o", "--minutes", "1-inf"],
        ["eval", "world", "--out", "o", "--minutes", "1e30"], ["eval", "world", "--out", "o", "--minutes", "-1"],
        ["eval", "world", "--out", "o", "--needles", "--minutes", "0,5"],
        ["data", "features", "v", "--model", "nano", "--out", "o", "--shard", "nan/2"],
        ["data", "features", "v", "--model", "nano", "--out", "o", "--shard", f"{10**30}/{10**30}"],
        ["data", "features", "v", "--model", "nano", "--out", "o", "--devices", "cuda:99999999999999999999"],
        ["data", "shard", "r.json", "--kind", "video", "--media", "m", "--out", "o", "--part", "-1/2"],
        ["data", "shard", "r.json", "--kind", "video", "--media", "m", "--out", "o", "--sample", "first:nan%"],
        ["data", "shard", "r.json", "--kind", "video", "--media", "m", "--out", "o", "--sample", "first:1e999%"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_numbers_inside_words(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = run_here(*arguments)
    assert (ended.code, ended.stdout) == (2, ""), ended
    assert error_line(ended) == ended.stderr.removeprefix("error: ").removesuffix("\n")
    assert not list(tmp_path.iterdir())
