"""What a run has cost: by kind of request and model, with the faults that were met."""

from hourllava.synthesis.models.spending import MILLION, Price, Spending


def cost_text(spending: Spending, prices: dict[str, Price]) -> str:
    """A Markdown table of all calls in the folder's log."""
    lines = [
        "# Costs",
        "",
        "All calls of models in this folder, those of interrupted runs and those that brought nothing included.",
        "",
        "| request | model | calls | tokens read | tokens written | cost | mean seconds | faults |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (kind, model), sums in sorted(spending.sums.items()):
        if not model:
            continue
        price = prices.get(model, Price())
        cost = (sums.prompt_tokens * price.prompt + sums.completion_tokens * price.completion) / MILLION
        faults = sums.faults + (spending.sums[kind, ""].faults if (kind, "") in spending.sums else type(sums.faults)())
        told = ", ".join(f"{name} {count}" for name, count in faults.most_common()) or "none"
        cells = (
            kind,
            model,
            sums.calls,
            sums.prompt_tokens,
            sums.completion_tokens,
            f"{cost:.4f}" if model in prices else "-",
            f"{sums.seconds / max(1, sums.calls):.2f}",
            told,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", f"{spending.tokens:,} tokens in all" + (f", cost {spending.cost:.4f}." if prices else ".")]
    return "\n".join(lines) + "\n"
