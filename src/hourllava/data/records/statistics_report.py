"""`hourllava data stats`: what is in a data set, in tables and pictures."""

from collections.abc import Iterator
from pathlib import Path

from hourllava.data.records.statistics import PUBLISHED, WORLD_SOURCE, Statistics, collect_statistics, short_number
from hourllava.data.records.taxonomy import TASKS
from hourllava.errors import DataError, PartlyDoneError
from hourllava.files import replacing

COMPARISON_HEADS = ("data set", "captioner", "summarizer", "total", "mean", "range", "open-ended", "multiple-choice")


def comparison_rows(statistics: Statistics) -> list[tuple[str, ...]]:
    """Rows for the four published data sets and this one; `COMPARISON_HEADS` names the columns."""
    rows = [
        tuple(
            str(entry[key]) for key in ("name", "captioner", "summarizer", "total", "mean", "range", "open", "choice")
        )
        for entry in PUBLISHED["data_sets"]
    ]
    minutes = statistics.durations_minutes
    known = len(minutes) == statistics.num_videos
    exact = set(statistics.videos_per_source) == {WORLD_SOURCE}
    rows.append(
        (
            statistics.name,
            "exact script" if exact else "not given",
            "exact script" if exact else "not given",
            f"{short_number(sum(minutes) / 60)} h" if known else "not given",
            f"{sum(minutes) / len(minutes):.1f} min" if known else "not given",
            f"{minutes[0]:.0f}-{minutes[-1]:.0f} min" if known else "not given",
            short_number(statistics.num_open),
            short_number(statistics.num_choice),
        )
    )
    return rows


def markdown_report(statistics: Statistics) -> str:
    """The comparison table and the counts per task as Markdown."""
    lines = [f"# {statistics.name}", "", f"{statistics.num_videos} videos.", ""]
    lines += [f"| {' | '.join(COMPARISON_HEADS)} |", "|" + "---|" * len(COMPARISON_HEADS)]
    lines += [f"| {' | '.join(row)} |" for row in comparison_rows(statistics)]
    lines += ["", "| topic | task | form | questions |", "|---|---|---|---|"]
    for name, task in TASKS.items():
        count = statistics.questions_per_task.get(name, 0)
        lines.append(f"| {task.topic} | {name} | {task.form} | {count} |")
    lines += ["", *(f"- {note}" for note in statistics.notes)]
    return "\n".join(lines).rstrip() + "\n"


def write_statistics(source: Path, out: Path, name: str | None = None) -> Iterator[str]:
    """Write figures (PNG, SVG) and tables (Markdown, JSON) of a data set to `out`.

    Yields:
        lines for the user: counts, records that could not be used, written files.

    Raises:
        PartlyDoneError: after the last line, if some records could not be used.
        DataError: the data set cannot be read.
    """
    from hourllava import plotting  # first: it says what to install without matplotlib
    from hourllava.data.records.statistics_figures import draw_comparison, draw_panels, draw_taxonomy

    statistics, report = collect_statistics(source, name)
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = []
        for stem, figure in (
            ("statistics", draw_panels(statistics)),
            ("taxonomy", draw_taxonomy(statistics)),
            ("comparison", draw_comparison(COMPARISON_HEADS, comparison_rows(statistics))),
        ):
            written += [plotting.save_figure(figure, out / f"{stem}{suffix}") for suffix in (".png", ".svg")]
        for path, text in (
            (out / "statistics.md", markdown_report(statistics)),
            (out / "statistics.json", statistics.model_dump_json(indent=1) + "\n"),
        ):
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror}; use a folder you may write to") from error
    summary = (
        f"{statistics.num_videos} videos, {statistics.num_open} open-ended and {statistics.num_choice} multiple-choice"
    )
    yield from (f"{summary} questions", *statistics.notes, *report.lines(), *map(str, written))
    if report.problems:
        raise PartlyDoneError(
            f"{report.problems.total()} records of {source} could not be used; all others are counted"
        )
