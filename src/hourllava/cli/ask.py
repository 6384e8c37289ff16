"""`hourllava ask`: answer questions about a video."""

import json
from typing import Annotated

import typer

from hourllava.cli import options


def ask(
    file: options.File,
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION", help="One or more questions.")],
    model: options.Model = "nano",
    option: Annotated[
        list[str] | None, typer.Option(help="One option of a multiple-choice question; repeatable.")
    ] = None,
    subtitles: options.Subtitles = None,
    subtitles_encoding: options.SubtitlesEncoding = None,
    max_new_tokens: options.MaxNewTokens = 512,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = 0,
    fps: options.Fps = 1.0,
    from_: options.From = "0",
    to: options.To = None,
    as_json: options.Json = False,
    no_cache: options.NoCache = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    allow_network: options.AllowNetwork = False,
    allow_playlists: options.AllowPlaylists = False,
) -> None:
    """Answer questions about a video.

    A video without a memory in the cache is watched first.
    Answers go to stdout.
    """
    from hourllava.cli.session import JSON_FORMAT, open_memory
    from hourllava.inference.questions.answers import Answer, Choice
    from hourllava.inference.questions.evidence import describe_spans
    from hourllava.inference.questions.subtitles import read_subtitles
    from hourllava.video import shown_name

    cues = read_subtitles(subtitles, subtitles_encoding) if subtitles else []
    engine, memory = open_memory(
        file,
        model,
        device=device,
        dtype=dtype,
        fps=fps,
        start=from_,
        end=to,
        use_cache=not no_cache,
        allow_network=allow_network,
        allow_playlists=allow_playlists,
    )
    answers: list[Answer | Choice] = []
    if option:
        choices = [engine.choose(memory, question, option, subtitles=cues) for question in questions]
        answers += choices
        texts = [f"{choice.letter}. {choice.option}" for choice in choices]
    else:
        written = engine.ask_all(
            memory, questions, subtitles=cues, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        )
        answers += written
        texts = [answer.text for answer in written]
    if as_json:
        described = [answer.to_dict() for answer in answers]
        typer.echo(json.dumps({"format": JSON_FORMAT, "file": shown_name(file), "model": model, "answers": described}))
        return
    for answer, text in zip(answers, texts):
        if len(answers) > 1:
            typer.echo(f"Q: {answer.question}")
        typer.echo(text)
        typer.echo(f"   seen at {describe_spans(answer.evidence)}")
