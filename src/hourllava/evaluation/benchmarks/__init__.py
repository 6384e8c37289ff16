"""Public benchmarks: from the files as they lie after download to a table that can be compared.

    folder      files of a download: annotations, videos, subtitles, archives that are still packed
    questions   the table of questions, with what could not be used
    cues        subtitles, and which of them a prompt shows
    protocols   prompts by name: `official`, `lmms-eval-0.7.2`, `lmms-eval-0.3`, `likelihood`
    letters     rules that read an option's letter out of an answer
    rules       answers to verdicts: right, wrong, or for a judge
    benchmark   what a benchmark is made of; one file each: video_mme, tempcompass, longvideobench, lvbench, mlvu,
                egoschema, cg_bench, hourvideo, marathonworld
    catalogue   all of them by name
    check       `hourllava eval check`: what is there
    raw         answers as the model gave them, one line each
    runner      watches each video once and asks all of its questions
    judge       a judge model behind an OpenAI-compatible server
    scoring     raw answers to scores with intervals; two runs compared
    published   published figures, with what is known about how they were made
    report      scores as Markdown;  page: every question in one HTML file

Formats, prompts and rules are described in docs/public-benchmarks.md, with their sources.
"""
