"""The data card: what is in a data set, how it was made, and how good it is by its own figures.

Nothing in it depends on when or how often the run was interrupted; what it cost stands in costs.md.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hourllava import __version__
from hourllava.choices import LETTERS
from hourllava.data.records.taxonomy import TASKS
from hourllava.evaluation.bootstrap import bootstrap_accuracy
from hourllava.synthesis.candidates import Candidate
from hourllava.synthesis.checks.across import blind_accuracy, yes_or_no
from hourllava.synthesis.checks.run import CHECKS, Ledger
from hourllava.synthesis.checks.verifying import agrees, opinions
from hourllava.synthesis.questions import Told
from hourllava.synthesis.settings import SynthSettings

NUM_EXAMPLES = 3
ALL = "all"


@dataclass
class Counts:
    """What is counted while the data set is written.

    Attributes:
        written, kept: questions before and after all checks, with what the verifier said before.
        hours, num_videos, num_clips, num_captioned, num_unchanged, num_events: of the videos.
        licences, sources: number of videos of each.
    """

    written: list[Candidate] = field(default_factory=list)
    kept: list[Candidate] = field(default_factory=list)
    verdicts: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    hours: float = 0.0
    num_videos: int = 0
    num_clips: int = 0
    num_captioned: int = 0
    num_unchanged: int = 0
    num_events: int = 0
    licences: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)

    def add_video(self, told: Told) -> None:
        """Count a video."""
        self.num_videos += 1
        self.hours += told.planned.duration_seconds / 3600
        self.num_clips += len(told.captions)
        self.num_captioned += sum(captioned.texts is not None for captioned in told.captions)
        self.num_unchanged += sum(captioned.clip.is_unchanged for captioned in told.captions)
        self.num_events += len(told.events)
        self.licences[told.planned.video.terms.licence or "not given"] += 1
        self.sources[told.planned.video.data_source] += 1


def card_data(counts: Counts, ledger: Ledger, settings: SynthSettings, models: dict[str, Any]) -> dict[str, Any]:
    """The card as plain data.

    Args:
        counts, ledger: of the run.
        settings: of the run.
        models: role -> facts of what was asked.
    """
    seed = settings.seed
    checks = settings.checks
    return {
        "hourllava": __version__,
        "models": models,
        "seed": seed,
        "videos": {
            "number": counts.num_videos,
            "hours": round(counts.hours, 3),
            "sources": dict(sorted(counts.sources.items())),
            "licences": dict(sorted(counts.licences.items())),
            "clips": counts.num_clips,
            "clips_captioned": counts.num_captioned,
            "clips_unchanged": counts.num_unchanged,
            "events": counts.num_events,
        },
        "checks": {
            name: {
                "on": bool(getattr(checks, name)),
                "dropped": ledger.counts[name],
                "examples": _examples(name, counts, ledger),
            }
            for name in CHECKS
        },
        "tasks": _task_table(counts, ledger, seed),
        "verifier": _verifier(counts),
        "letters": _letters(counts.kept, seed),
    }


def _examples(check: str, counts: Counts, ledger: Ledger) -> list[dict[str, str]]:
    found = []
    for candidate in counts.written:
        if ledger.dropped.get(candidate.id, ("", ""))[0] == check:
            reason = ledger.dropped[candidate.id][1]
            found.append({"question": candidate.question, "answer": candidate.answer, "reason": reason})
            if len(found) == NUM_EXAMPLES:
                break
    return found


def _task_table(counts: Counts, ledger: Ledger, seed: int) -> dict[str, dict[str, Any]]:
    before, after = (blind_accuracy(some, seed) for some in (counts.written, counts.kept))
    table = {}
    for task in (*TASKS, ALL):
        written, kept = ([c for c in some if task in (c.task, ALL)] for some in (counts.written, counts.kept))
        yes = [yes_or_no(candidate) for candidate in kept]
        choices = [c for c in kept if c.format == "choice"]
        checked = [c for c in written if opinions(c, counts.verdicts.get(c.id) or {})]
        dropped: Counter[str] = sum(ledger.by_task.values(), Counter()) if task == ALL else ledger.by_task[task]
        table[task] = {
            "written": len(written),
            "open": sum(c.format == "open" for c in kept),
            "choice": len(choices),
            "dropped": dict(sorted(dropped.items())),
            "with_evidence": sum(bool(c.evidence) for c in kept),
            "verifier_agrees": _share(checked, [agrees(c, counts.verdicts[c.id] or {}) for c in checked]),
            "blind_before": before.get(task),
            "blind_after": after.get(task),
            "yes": yes.count("yes"),
            "no": yes.count("no"),
            "right_is_longest": sum(len(c.answer) > max(map(len, c.wrong)) for c in choices),
        }
    return table


def _verifier(counts: Counts) -> dict[str, int]:
    """How often the verifier was asked, and about how many questions it contradicted itself."""
    found = [opinions(c, counts.verdicts.get(c.id) or {}) for c in counts.written]
    asked = [answers for answers in found if answers]
    return {
        "questions": len(asked),
        "answers": sum(map(len, asked)),
        "contradicted_itself": sum(len(set(answers)) > 1 for answers in asked),
    }


def _share(candidates: Sequence[Candidate], hits: Sequence[bool]) -> dict[str, Any] | None:
    if not candidates:
        return None
    cell = bootstrap_accuracy(hits, [candidate.video.id for candidate in candidates])
    return {name: round(cell[name], 4) for name in ("accuracy", "low", "high")} | {"n": cell["n"]}


def _letters(kept: Sequence[Candidate], seed: int) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for candidate in kept:
        index = candidate.row(seed).answer_index
        if index is not None:
            found[LETTERS[index]] += 1
    return dict(sorted(found.items()))


def card_text(data: dict[str, Any], name: str) -> str:
    """The card as Markdown."""
    videos, tasks = data["videos"], data["tasks"]
    total = tasks[ALL]
    lines = [
        f"# {name}",
        "",
        f"Made with hourllava {data['hourllava']} from {videos['number']} videos ({videos['hours']:.2f} hours): "
        f"{total['open']} open-ended and {total['choice']} multiple-choice questions, "
        f"{total['with_evidence']} of them with evidence spans. "
        f"{total['written']} were written, {total['written'] - total['open'] - total['choice']} dropped by checks.",
        "",
        "What the models say is not true because they say it: read the quality table before you train.",
        "",
        "| role | model | prompts |",
        "|---|---|---|",
    ]
    for role, facts in data["models"].items():
        prompts = ", ".join(f"{prompt} {digest[:8]}" for prompt, digest in facts["prompts"].items())
        lines.append(f"| {role} | {facts['model'] or 'none'} | {prompts} |")
    lines += ["", "## Videos", ""]
    lines.append(
        f"{videos['clips']} clips, {videos['clips_captioned']} described, {videos['clips_unchanged']} unchanged; "
        f"{videos['events']} events."
    )
    for title, found in (("source", videos["sources"]), ("licence", videos["licences"])):
        lines += ["", f"| {title} | videos |", "|---|---|", *(f"| {key} | {count} |" for key, count in found.items())]
    lines += ["", "## Questions and their quality", "", *_quality_lines(tasks)]
    letters = ", ".join(f"{letter} {count}" for letter, count in data["letters"].items()) or "none"
    lines += ["", f"Right letters: {letters}."]
    if asked := data["verifier"]["questions"]:
        answers, share = data["verifier"]["answers"], 100 * data["verifier"]["contradicted_itself"] / asked
        lines += ["", f"The verifier gave {answers} answers about {asked} questions, and contradicted itself about "
                  f"{share:.1f} % of these."]  # fmt: skip
    lines += ["", "## What checks dropped", "", "| check | dropped |", "|---|---|"]
    lines += [f"| {check} | {found['dropped'] if found['on'] else 'off'} |" for check, found in data["checks"].items()]
    for check, found in data["checks"].items():
        if found["examples"]:
            lines += ["", f"**{check}**, for example:", ""]
            lines += [f"- {e['question']} - {e['answer']} ({e['reason']})" for e in found["examples"]]
    return "\n".join(lines).rstrip() + "\n"


def _quality_lines(tasks: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "Percent, with 95 % intervals that respect videos. *Verifier agrees*: of all questions it was asked. "
        "*Blind*: multiple choice that the best of four attackers answers without the video, "
        "25 is chance; a dash: too few questions to say.",
        "",
        "| task | written | open | choice | verifier agrees | blind before | blind after | yes : no | longest right |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task, row in tasks.items():
        agreed, choice = row["verifier_agrees"], row["choice"]
        share = (
            f"{100 * agreed['accuracy']:.1f} ({100 * agreed['low']:.0f}-{100 * agreed['high']:.0f})" if agreed else "-"
        )
        blind = [f"{100 * row[key]:.0f}" if row[key] is not None else "-" for key in ("blind_before", "blind_after")]
        longest = f"{100 * row['right_is_longest'] / choice:.0f}" if choice else "-"
        ratio = f"{row['yes']} : {row['no']}" if row["yes"] + row["no"] else "-"
        cells = (task, row["written"], row["open"], choice, share, *blind, ratio, longest)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def card_json(data: dict[str, Any]) -> str:
    """The card as JSON."""
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"
