"""`hourllava chat`: talk about a video."""

import io
import json
import sys

import typer

from hourllava.cli import options


def chat(
    file: options.File,
    model: options.Model = "nano",
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
    """Talk about a video; later questions may refer to earlier answers.

    End with an empty line or the end of input.
    """
    from hourllava.cli.session import open_memory, read_questions
    from hourllava.errors import InputError
    from hourllava.inference.chat import Chat
    from hourllava.inference.questions.evidence import describe_spans
    from hourllava.inference.questions.subtitles import read_subtitles

    if sys.stdin is None:
        raise InputError("standard input is closed, but chat reads its questions there; use `hourllava ask`")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a broken letter does not end the conversation
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
    conversation = Chat(engine, memory)
    prompt = "> " if sys.stdin.isatty() else ""
    num_failed = 0
    for question in read_questions(lambda: input(prompt)):
        try:
            answer = conversation.ask(
                question,
                subtitles=cues,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
                on_text=None if as_json else lambda text: print(text, end="", flush=True),
            )
        except InputError as error:  # the next question may be fine
            typer.echo(f"error: {error}", err=True)
            num_failed += 1
            continue
        if as_json:
            typer.echo(json.dumps(answer.to_dict()))
        else:
            typer.echo(f"\n   seen at {describe_spans(answer.evidence)}")
    if num_failed and not prompt:  # a pipe: nobody has read the error lines
        raise InputError(f"{num_failed} questions could not be asked; the others are answered")
