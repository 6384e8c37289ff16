"""Intervals for shares of right answers when several questions are about the same video.

A model that sees a video badly answers most questions about it wrongly, so 44 questions about one video say less than
one question about each of 44 videos. Wilson's interval is therefore computed for fewer questions, the *effective
number*:

    effective number = n / D * (t(n - 1) / t(G - 1))^2, at least n^2 / sum(m^2), at most n

n is the number of questions, G the number of videos, m the number of questions about one video. D, the design effect,
is the variance of the share with videos as clusters over its variance with independent questions. The factor with
Student's t accounts for the few videos that D is estimated from. At the lower bound all answers about a video are
alike; for equal m it is G. The lower bound is also used where D cannot be estimated: for one video, or if all answers
are alike. With one question per video the result is Wilson's own interval.

Sources: E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927. E. L. Korn and
B. I. Graubard, Confidence intervals for proportions with small expected number of positive counts estimated from survey
data, 1998 (effective number, with t). D. G. Bonett and R. M. Price, Adjusted Wald confidence interval for a difference
of binomial proportions based on paired data, 2012. G. W. Snedecor and W. G. Cochran, Statistical methods, section 13.3
(intraclass correlation).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any

Interval = tuple[float, float]

Z = 1.959963984540054  # the 97.5 % point of the normal distribution
_NEARLY_NORMAL = 400  # from so many degrees of freedom, three terms of the expansion give t to 1e-7


def wilson_interval(share: float, num_questions: float) -> Interval:
    """95 % confidence interval of a share of right answers; (0, 1) if there was no question."""
    if num_questions == 0:
        return 0.0, 1.0
    weight = Z**2 / num_questions
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    # Rounding must not put a share of 0 or 1 outside its own interval.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


@lru_cache(maxsize=4096)
def t_quantile(degrees: int) -> float:
    """The 97.5 % point of Student's t distribution with these degrees of freedom, 1 or more.

    Source: the closed form for whole degrees, Abramowitz and Stegun 26.7.3 and 26.7.4, solved by bisection; for many
    degrees their expansion 26.7.5.
    """
    if degrees >= _NEARLY_NORMAL:
        return Z + (Z**3 + Z) / (4 * degrees) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * degrees**2)
    low, high = 0.0, math.pi / 2  # bounds of the angle whose tangent is t / sqrt(degrees)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_within(middle, degrees) < 0.95 else (low, middle)
    return math.tan(low) * math.sqrt(degrees)


def _share_within(angle: float, degrees: int) -> float:
    """The share of the distribution between -t and t, where t = tan(angle) * sqrt(degrees)."""
    cosine = math.cos(angle)
    is_odd = degrees % 2
    term = total = cosine if is_odd else 1.0
    for k in range(3 if is_odd else 2, degrees - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    if not is_odd:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if degrees > 1 else 0.0))


def effective_number(values: Sequence[float], videos: Sequence[Hashable]) -> float:
    """How many independent questions would give the mean as precisely as these; see the head of this file.

    Args:
        values: one per question; at least one.
        videos: the video of each question.
    """
    n, sizes = len(values), Counter(videos)
    least = n**2 / sum(size**2 for size in sizes.values())
    mean = sum(values) / n
    squares = sum((value - mean) ** 2 for value in values)
    if len(sizes) == n or len(sizes) == 1 or squares == 0:
        return least
    deviations: dict[Hashable, float] = defaultdict(float)
    for value, video in zip(values, videos, strict=True):
        deviations[video] += value - mean
    clustered = len(sizes) / (len(sizes) - 1) * sum(total**2 for total in deviations.values())
    independent = n / (n - 1) * squares
    few_videos = (t_quantile(n - 1) / t_quantile(len(sizes) - 1)) ** 2
    return max(least, n / max(1.0, clustered / independent) * few_videos)


def intraclass_correlation(values: Sequence[float], videos: Sequence[Hashable]) -> float | None:
    """How alike answers about one video are: 0 as across videos, 1 all equal; None if it cannot be estimated."""
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for value, video in zip(values, videos, strict=True):
        groups[video].append(value)
    n, num_videos = len(values), len(groups)
    if num_videos in (0, 1, n):
        return None
    mean = sum(values) / n
    means = {video: sum(some) / len(some) for video, some in groups.items()}
    between = sum(len(some) * (means[video] - mean) ** 2 for video, some in groups.items()) / (num_videos - 1)
    within = sum((value - means[video]) ** 2 for video, some in groups.items() for value in some) / (n - num_videos)
    size = (n - sum(len(some) ** 2 for some in groups.values()) / n) / (num_videos - 1)
    total = between + (size - 1) * within
    return (between - within) / total if total else None


def accuracy_of(hits: Sequence[bool], videos: Sequence[Hashable]) -> dict[str, Any]:
    """The share of right answers with its 95 % interval, as plain data.

    Args:
        hits: whether each answer is right.
        videos: the video of each question.

    Returns:
        `n`, `right`, `accuracy` (None if there is no question), `low`, `high`, `videos` (their number), `effective_n`,
        `correlation` (of the answers about one video; None if it cannot be estimated).
    """
    n, num_right = len(hits), sum(hits)
    effective = effective_number(hits, videos) if n else 0.0
    low, high = wilson_interval(num_right / n if n else 0.0, effective)
    return {
        "n": n, "right": num_right, "accuracy": num_right / n if n else None, "low": low, "high": high,
        "videos": len(set(videos)), "effective_n": effective, "correlation": intraclass_correlation(hits, videos),
    }  # fmt: skip


def difference_of(ours: Sequence[bool], theirs: Sequence[bool], videos: Sequence[Hashable]) -> dict[str, Any]:
    """Our share of right answers minus theirs to the same questions, with its 95 % interval.

    Only questions that one side has right and the other wrong count, so the interval is narrower than the intervals of
    the two shares suggest. It is Bonett's and Price's, with the effective number of the differences.

    Args:
        ours, theirs: whether each answer is right, in the same order of questions.
        videos: the video of each question.

    Returns:
        `n`, `won` (questions that only we have right), `lost` (only they), `difference` (None if there is no question),
        `low`, `high`, `videos`, `effective_n`.
    """
    n = len(videos)
    gains = [int(our) - int(their) for our, their in zip(ours, theirs, strict=True)]
    won, lost = gains.count(1), gains.count(-1)
    effective = effective_number(gains, videos) if n else 0.0
    share_won, share_lost = (((part * effective / n if n else 0) + 1) / (effective + 2) for part in (won, lost))
    centre = share_won - share_lost
    half = Z * math.sqrt((share_won + share_lost - centre**2) / (effective + 2))
    return {
        "n": n, "won": won, "lost": lost, "difference": (won - lost) / n if n else None,
        "low": max(-1.0, centre - half), "high": min(1.0, centre + half),
        "videos": len(set(videos)), "effective_n": effective,
    }  # fmt: skip


def mean_interval(values: Sequence[float]) -> Interval | None:
    """95 % interval of the mean of a few independent values, such as one per seed; None for fewer than two."""
    n = len(values)
    if n < 2:
        return None
    mean = sum(values) / n
    half = t_quantile(n - 1) * math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return mean - half, mean + half
