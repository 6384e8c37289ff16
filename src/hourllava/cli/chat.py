"""`hourllava chat`: a conversation about a video."""

import sys

import typer

from hourllava.cli import options


def chat(
    file: options.File,
    model: options.Model = "nano",
    subtitles: options.Subtitles = None,
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
    """Talk about a video; earlier answers are context. An empty line or the end of input ends it."""
    import json

    from hourllava.inference.session import describe_spans, open_memory, read_questions
    from hourllava.inference.subtitles import read_subtitles

    cues = read_subtitles(subtitles) if subtitles else []
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
    conversation = engine.chat(memory)
    prompt = "> " if sys.stdin.isatty() else ""
    for question in read_questions(lambda: input(prompt)):
        answer = conversation.ask(
            question,
            subtitles=cues,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            on_text=None if as_json else lambda text: print(text, end="", flush=True),
        )
        if as_json:
            typer.echo(json.dumps(answer.to_dict()))
        else:
            typer.echo(f"\n   seen at {describe_spans(answer.evidence)}")
