"""The table of `ablations.py`: accuracies of the variants, and their differences from the first variant."""

from collections.abc import Mapping, Sequence

from ablations_results import Reply, Results
from hourllava.evaluation.intervals import difference_of, mean_interval
from hourllava.evaluation.report import markdown_table
from hourllava.files import replacing

TABLE_NAME = "table.md"
Column = tuple[str, str]  # evaluation, format
Answers = dict[Column, dict[str, Reply]]  # by the question's id


def write_table(results: Results) -> None:
    """Write table.md from all finished evaluations: accuracies, and differences from the first variant."""
    plan = results.plan
    columns = [(name, format_) for name in plan.evaluations for format_ in ("choice", "open")]
    found = {
        variant.name: {seed: _answers(results.unit(variant, seed).replies) for seed in plan.seeds}
        for variant in plan.variants
    }
    used = [column for column in columns if any(column in one for seeds in found.values() for one in seeds.values())]
    baseline = plan.variants[0].name
    shares = [[name, *(_share_cell([one[column] for one in seeds.values() if column in one]) for column in used)]
              for name, seeds in found.items()]  # fmt: skip
    differences = [[name, *(_difference_cell(seeds, found[baseline], column) for column in used)]
                   for name, seeds in found.items() if name != baseline]  # fmt: skip
    heads = [f"{name}, {'multiple choice' if format_ == 'choice' else 'open-ended'}" for name, format_ in used]
    text = "\n\n".join((
        f"Right answers in percent: mean over the seeds (lowest to highest; number of seeds). "
        f"Seeds: {', '.join(map(str, plan.seeds))}.",
        markdown_table(["variant", *heads], shares),
        f"Percentage points above {baseline}, with the same questions and seeds. *videos*: the 95 % interval for other "
        "videos and the same trained models. *seeds*: the 95 % interval for other training seeds; it is wide for two "
        "seeds. A difference is certain if both intervals exclude 0.",
        markdown_table(["variant", *heads], differences),
    ))  # fmt: skip
    with replacing(results.path.with_name(TABLE_NAME)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _answers(replies: Mapping[str, Sequence[Reply]]) -> Answers:
    """The replies of a unit, by column."""
    answers: Answers = {}
    for name, of_evaluation in replies.items():
        for one in of_evaluation:
            answers.setdefault((name, one.format), {})[one.id] = one
    return answers


def _share_cell(seeds: Sequence[dict[str, Reply]]) -> str:
    if not seeds:
        return ""
    values = [100 * sum(one.right for one in asked.values()) / len(asked) for asked in seeds]
    return f"{sum(values) / len(values):.1f} ({min(values):.1f} to {max(values):.1f}; {len(values)})"


def _difference_cell(ours: dict[int, Answers], baseline: dict[int, Answers], column: Column) -> str:
    """The difference over the questions of all seeds, with its interval by video and its interval by seed."""
    pairs = [
        [(one.right, others[name].right, one.video)
         for name, one in answers[column].items() if name in others]
        for seed, answers in ours.items() if column in answers and (others := baseline[seed].get(column))
    ]  # fmt: skip
    if not any(pairs):
        return ""
    cell = difference_of(*zip(*(pair for some in pairs for pair in some)))
    by_seed = mean_interval([sum(our - their for our, their, _ in some) / len(some) for some in pairs if some])
    low, high = (f"{100 * cell[name]:+.1f}" for name in ("low", "high"))
    seeds = "one seed" if by_seed is None else f"seeds {100 * by_seed[0]:+.1f} to {100 * by_seed[1]:+.1f}"
    return f"{100 * cell['difference']:+.1f} (videos {low} to {high}; {seeds})"
