"""When the pictures of a memory appear: evidence names moments by them."""

import numpy as np
import numpy.typing as npt

MINUTE_SECONDS = 60.0


def shown_from_seconds(
    timestamps_seconds: npt.NDArray[np.float64], sample_seconds: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """[T] when each frame appears.

    A picture that stays, such as a slide, is in many samples but appears once. If it stays longer than a minute, it
    counts as a new picture every minute, so that evidence can say which minute mattered.

    Args:
        timestamps_seconds: when each frame's picture appears.
        sample_seconds: when each frame was sampled.
    """
    minute = (np.maximum(sample_seconds - timestamps_seconds, 0.0) // MINUTE_SECONDS).astype(np.int64)
    is_new = np.ones(len(minute), bool)
    is_new[1:] = (np.diff(timestamps_seconds) > 0) | (np.diff(minute) > 0)
    starts = np.where(minute > 0, sample_seconds, timestamps_seconds)
    return starts[np.maximum.accumulate(np.where(is_new, np.arange(len(minute)), 0))]
