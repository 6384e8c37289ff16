"""Files of any bytes are a recipe, or give an error of one line."""

import random

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from hourllava.errors import ConfigError
from hourllava.training import recipe_yaml
from hourllava.training.recipe import Recipe, load_recipe, recipe_text, shipped_recipes
from hourllava.training.recipe_yaml import MAX_DEPTH, parse_yaml

WHOLE = recipe_text(load_recipe("recipes/finetune-lora.yaml")).encode()
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12)
)


def one_line(path, overrides=()):
    """The recipe; None after an error of one line."""
    try:
        return load_recipe(path, overrides)
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 3000
    return None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"out: \xff", "byte 5 is not UTF-8"),
        ("out: x".encode("utf-16"), "is not UTF-8"),
        (b"seed: !!int abc", "no YAML"),
        (b"seed: !!int ''", "no YAML"),
        (b"seed: !!float x", "no YAML"),
        (b"seed: !!bool maybe", "no YAML"),
        (b"seed: !!timestamp soon", "no YAML"),
        (b"seed: !!binary '****'", "no YAML|holds a bytes"),
        (b"out: 2001-99-99", "no YAML"),
        (b"out: 2024-05-01", "holds a date, '2024-05-01'; if you mean text, put it in quotes"),
        (b"out: 2024-05-01 10:00:00", "holds a datetime"),
        (b"out: !!binary aGVsbG8=", "holds a bytes"),
        (b"data: !!set {a, b}", "holds a set"),
        (b"data: !!pairs [a: b]", "holds a tuple"),
        (b"out: !!python/object/apply:os.system [ls]", "no YAML"),
        (b"? [a, b]\n: c", "no YAML"),
        (b"1: 2", "the key 1, which is not text"),
        (b"null: 2", "the key None, which is not text"),
        (b"seed: 1\nseed: 2", "the key 'seed' appears twice"),
        (b"learning_rates: {'*': 1, '*': 2}", "the key '\\*' appears twice"),
        pytest.param(b"[" * 2000, "no YAML|more than", marks=pytest.mark.slow),
        (b"a: " + b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), "levels"),
        (b"a: &a [*a]", "levels"),
        (b"start: &a {model: *a}", "levels"),
        (LAUGHS.encode(), "more than 100,000 values"),
        (b"seed: " + b"9" * 5000, "no YAML|less than or equal"),
        (b"base: 3", "base is the path of a recipe, or a list of paths, got 3"),
        (b"base: [3]", "base is the path of a recipe"),
        (b"base: {a: b}", "base is the path of a recipe"),
        (b"base: ''", "there is no recipe"),
        (b"base: " + b"x" * 5000, "cannot be looked up|there is no recipe"),
        (b"", "mapping"),
        (b"\x00", "no YAML"),
    ],
)
def test_what_is_no_recipe(tmp_path, text, message):
    (tmp_path / "r.yaml").write_bytes(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_recipe(tmp_path / "r.yaml")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=99999999999999999999999", "seed: .*less than or equal to 4294967295"),
        ("batch.token_budget=1e30", "token_budget"),
        ("batch.token_budget=99999999999", "less than or equal"),
        ("batch.samples=.inf", "finite"),
        ("batch.samples=1e999", "finite"),
        ("schedule.warmup=.nan", "schedule.warmup"),
        ("optimizer.betas=[.nan, 0.9]", "betas"),
        ("learning_rates={'*': .inf}", "finite"),
        ("learning_rates=3", "learning_rates"),
        ("data=3", "data: "),
        ("data.streams=x", r"data\.streams"),
        ("data.streams=[x]", r"data\.streams\.0"),
        ("lora.targets='('", r"lora\.targets: it is not a regular expression"),
        ("a..b=1", "a is not a setting"),
        ("out=2024-05-01", "holds a date"),
        ("out=!!int x", "no YAML"),
    ],
)
def test_a_value_on_the_command_line(override, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_recipe("recipes/finetune-lora.yaml", [override])
    assert "\n" not in str(error.value)


def test_a_folder_and_a_file_that_may_not_be_read(tmp_path):
    with pytest.raises(ConfigError, match="there is no recipe"):
        load_recipe(tmp_path)
    (tmp_path / "r.yaml").symlink_to("/proc/self/mem")
    assert one_line(tmp_path / "r.yaml") is None


@pytest.mark.parametrize("seed", [*range(60), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(60, 300))])
def test_mutated_files(tmp_path, seed):
    rng = random.Random(seed)
    content = bytearray(WHOLE)
    for _ in range(rng.choice([1, 1, 3, 20])):
        place, kind = rng.randrange(len(content)), rng.randrange(5)
        if kind == 0:
            content[place] = rng.randrange(256)
        elif kind == 1:
            content[place:place] = rng.randbytes(rng.choice([1, 4, 100]))
        elif kind == 2:
            del content[place : place + rng.choice([1, 10, 200])]
        elif kind == 3:
            content[place:place] = rng.choice(
                [
                    b"!!int ",
                    b"!!python/name:os.system ",
                    b"&a ",
                    b"*a ",
                    b"2001-99-99",
                    b"[" * 300,
                    b"{",
                    b"? ",
                    b"- ",
                    b"\t",
                    b": ",
                ]
            )
        else:
            content[place:place] = content[: rng.randrange(400)]
    path = tmp_path / "r.yaml"
    path.write_bytes(bytes(content))
    recipe = one_line(path)
    if recipe is not None:
        assert yaml.safe_load(recipe_text(recipe))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
SECTIONS = [*Recipe.model_fields, "base", "batch.samples", "data.streams", "start.model", "lora.alpha", "x"]


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_yaml, "MAX_VALUES", 1000)
    (tmp_path / "r.yaml").write_text(f"start: {{model: {{x: [{'1, ' * 1001}]}}}}")
    with pytest.raises(ConfigError, match="more than 1,000 values"):
        load_recipe(tmp_path / "r.yaml")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A whole recipe in one short file, because PyYAML is slow."""
    path = tmp_path_factory.mktemp("small") / "r.yaml"
    path.write_text("{out: o, start: {checkpoint: nano}, data: {streams: [{folder: f}]}, batch: {samples: 1}, "
                    "learning_rates: {'*': 1}, lora: {}}")  # fmt: skip
    return path


@given(key=st.sampled_from(SECTIONS), value=plain)
@examples(100)
def test_any_value_of_any_setting(small, key, value):
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("...\n").strip()
    recipe = one_line(small, [f"{key}={text}"])
    if recipe is not None:
        assert yaml.safe_load(recipe_text(recipe))


@pytest.mark.parametrize("path", shipped_recipes())
def test_what_is_written_is_read_back(path):
    assert parse_yaml(recipe_text(load_recipe(path)), "it") == yaml.safe_load(recipe_text(load_recipe(path)))
