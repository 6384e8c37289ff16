"""The model inside lmms-eval, which finds it by the entry point `lmms_eval.models` of this package.

    python -m lmms_eval --model hourllava --model_args model=nano --tasks videomme --output_path out --log_samples

    requests   what a harness asks, grouped by video: each is watched once, in whatever order the requests come
    ranks      several processes: each gets whole videos, though the harness deals single questions
    model      the classes that lmms-eval loads; only they import it

lmms-eval needs an environment of its own: docs/other-harnesses.md.
"""

from typing import Any


def manifest() -> Any:
    """What lmms-eval registers: the model's name and its two classes."""
    from lmms_eval.models.registry_v2 import ModelManifest

    here = f"{__name__}.model"
    return ModelManifest(
        model_id="hourllava", simple_class_path=f"{here}.HourLlavaSimple", chat_class_path=f"{here}.HourLlavaChat"
    )
