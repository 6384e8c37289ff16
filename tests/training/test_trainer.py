"""The trainer's overrides of transformers' `Trainer`: they are listed, and transformers still calls them."""

import inspect
import re

import pytest
import transformers

from hourllava.training import trainer
from hourllava.training.trainer import HourLlavaTrainer

LISTED = re.findall(r"^- `(\w+)`: ", trainer.__doc__, flags=re.MULTILINE)


def test_every_private_override_is_listed():
    overridden = {name for name in vars(HourLlavaTrainer) if hasattr(transformers.Trainer, name)}
    assert {name for name in overridden if re.match("_[a-z]", name)} <= set(LISTED) <= overridden


@pytest.mark.parametrize("name", LISTED)
def test_transformers_still_has_and_calls_it(name):
    theirs = getattr(transformers.Trainer, name, None)
    assert theirs is not None, f"transformers {transformers.__version__} has no Trainer.{name}; see trainer.py"
    ours = inspect.signature(getattr(HourLlavaTrainer, name)).parameters
    assert list(ours) == list(inspect.signature(theirs).parameters)
    assert f"self.{name}(" in inspect.getsource(transformers.Trainer)
