"""How sure a share of right answers is, if the questions of one video belong together.

A model that sees a video badly answers most of its questions wrongly: 44 questions about one video say less than one
question about each of 44 videos. So a share counts as if fewer questions had been asked, the *effective number*. It is
the number of questions over the design effect (variance of the share with videos as clusters, over the variance with
independent questions), times (t of n - 1 degrees of freedom over t of G - 1)^2 for the few videos G that tell it. It
lies between n^2 / sum(m^2) for videos with m questions each, where all questions of a video have one fate (G for equal
m), and n. Where the correlation cannot be told - one video, or all answers alike - it is the former. Wilson's interval
then takes the effective number; with one question a video it is Wilson's own.

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

Z = 1.959963984540054  # 97.5 % of a normal distribution lies below
_NEARLY_NORMAL = 400  # degrees of freedom from which the first terms of the expansion give t to 1e-7


def wilson_interval(share: float, num_questions: float) -> Interval:
    """95 % confidence interval of a share of right answers to so many questions; (0, 1) if nothing was asked."""
    if num_questions == 0:
        return 0.0, 1.0
    weight = Z**2 / num_questions
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    # Of a share of 0 or 1, rounding would leave the share itself outside.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


@lru_cache(maxsize=4096)
def t_quantile(degrees: int) -> float:
    """97.5 % of Student's t with these degrees of freedom (1 or more) lie below.

    Source: the distribution's closed form for whole degrees, Abramowitz and Stegun 26.7.3 and 26.7.4, solved by
    halving; for many degrees their expansion 26.7.5.
    """
    if degrees >= _NEARLY_NORMAL:
        return Z + (Z**3 + Z) / (4 * degrees) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * degrees**2)
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t / sqrt(degrees)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_within(middle, degrees) < 0.95 else (low, middle)
    return math.tan(low) * math.sqrt(degrees)


def _share_within(angle: float, degrees: int) -> float:
    """Share of t's distribution between -t and t."""
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
    """How many independent questions tell the mean of the values as well as these; see the head of this file.

    Args:
        values: one for each question, 1 or more.
        videos: which video each is about.
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
    """How alike answers about one video are: 0 as those about others, 1 all the same; None if that cannot be told."""
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
        videos: which video each is about.

    Returns:
        `n`, `right`, `accuracy` (None if nothing was asked), `low`, `high`, `videos` (how many), `effective_n`,
        `correlation` (of the answers about one video, None if it cannot be told).
    """
    n, num_right = len(hits), sum(hits)
    effective = effective_number(hits, videos) if n else 0.0
    low, high = wilson_interval(num_right / n if n else 0.0, effective)
    return {
        "n": n, "right": num_right, "accuracy": num_right / n if n else None, "low": low, "high": high,
        "videos": len(set(videos)), "effective_n": effective, "correlation": intraclass_correlation(hits, videos),
    }  # fmt: skip


def difference_of(ours: Sequence[bool], theirs: Sequence[bool], videos: Sequence[Hashable]) -> dict[str, Any]:
    """By how much one share of right answers is above another of the same questions, with its 95 % interval.

    Only questions that one side has right and the other wrong tell it, so the interval is narrower than those of the
    two shares suggest. Bonett's and Price's interval, with the effective number of the questions' differences.

    Args:
        ours, theirs: whether each answer is right; the same question at the same place.
        videos: which video each is about.

    Returns:
        `n`, `won` and `lost` (questions that only we, only they have right), `difference` (None if nothing was asked),
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
    """95 % interval of the mean of a few independent values, such as one for each seed; None for a single one."""
    n = len(values)
    if n < 2:
        return None
    mean = sum(values) / n
    half = t_quantile(n - 1) * math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return mean - half, mean + half
