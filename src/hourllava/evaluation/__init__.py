"""Benchmarks: how well a model sees, remembers and finds again.

For every benchmark:

    answering   cases (a video with questions) -> answers under each condition
    run         answers all cases, continues interrupted runs, writes the results
    scores      what counts as right; accuracies and differences by axis
    intervals   how certain a share or a difference is
    results     stored answers -> scores, tables, figures
    report      scores as Markdown
    figures     scores as pictures

MarathonWorld only:

    cases       its held-out videos and needle videos as cases
    world       the evaluation: settings, folder, run
    command     the options of `hourllava eval world`
    demo        `hourllava demo`: ten questions about one new video
"""
