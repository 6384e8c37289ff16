"""Where a model runs and in which dtype."""

import torch

from hourllava.errors import ConfigError


def usable_device(device: torch.device | str | None) -> torch.device:
    """The device asked for, or the best there is.

    Raises:
        ConfigError: torch does not know it, or this machine does not have it.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        usable = torch.device(device)
        torch.empty(0, device=usable)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {str(device)!r} cannot be used ({reason}); give cpu, cuda or cuda:1") from error
    return usable


def usable_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, or what suits the device.

    float16 is refused: features of the vision tower can pass its range.

    Raises:
        ConfigError: it is neither float32 nor bfloat16.
    """
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    chosen = named.get(str(dtype).removeprefix("torch."))
    if chosen is None:
        raise ConfigError(f"dtype is {str(dtype)!r}; choose {' or '.join(named)}")
    return chosen
