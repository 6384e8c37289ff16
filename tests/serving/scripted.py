"""A model that follows a script, in place of `HourLlava`: queues, cancelling and faults are tested in milliseconds.

    model = ScriptedModel()
    model.frames_may_pass.clear()  # watching now stands still
    engine = LocalEngine(model, tmp_path)

Its jobs and streams are the real ones; only decoding, tower and decoder are played.
"""

import threading
import time
from types import SimpleNamespace

import numpy as np
import torch

from conftest import tiny_config
from hourllava.errors import Cancelled, VideoError
from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.snapshot import WatchedSource
from hourllava.inference.questions.answers import Choice
from hourllava.inference.questions.evidence import Span
from hourllava.inference.streams import AnswerState, AnswerStream
from hourllava.inference.watching.job import WatchJobs, cached_job

ENCODER = EncoderIdentity("scripted", 4, 2)
SPAN = Span(1.0, 3.0, 0.5)
HELD_SECONDS = 0.005


class ScriptedModel:
    """A model whose videos have `num_frames` frames each, and whose answers are `words`.

    Attributes:
        frames_may_pass, tokens_may_pass, choices_may_pass: cleared, nothing goes on; a first token always comes.
        watch_error: raised after half of the frames; `start_error`: before the first.
        ask_error: raised in place of the second word.
        started: paths of the videos that were watched.
        num_cancelled: answers that nobody wanted.
    """

    def __init__(self, num_frames=8, words=("A ", "lamp ", "and ", "a ", "cat.")):
        self.num_frames, self.words = num_frames, words
        self.encoder = ENCODER
        self.model = SimpleNamespace(config=tiny_config())
        self.frames_may_pass, self.tokens_may_pass, self.choices_may_pass = (threading.Event() for _ in range(3))
        for gate in (self.frames_may_pass, self.tokens_may_pass, self.choices_may_pass):
            gate.set()
        self.watch_error = self.start_error = self.ask_error = None
        self.started = []
        self.num_cancelled = 0
        self.is_closed = False
        self._jobs = WatchJobs()
        self._states = []

    def start_watch(self, path, *, keeps_running, fps, start_seconds, end_seconds, cache, digest, **_):
        if self.start_error is not None:
            raise self.start_error
        key = cache.key(digest, fps, self.encoder, start_seconds, end_seconds)
        if (kept := cache.get(key)) is not None:
            return cached_job(path, kept)
        if "missing" in path:
            raise VideoError(f"{path}: no such file: give the path of a video file")

        def work(run):
            self.started.append(path)
            for done in range(self.num_frames):
                run.report(done, self.num_frames)
                while not self.frames_may_pass.is_set() and not run.stop.is_set():
                    time.sleep(HELD_SECONDS)
                if run.stop.is_set():
                    raise Cancelled("encoding frames was cancelled")
                if self.watch_error is not None and done == self.num_frames // 2:
                    raise self.watch_error
            run.report(self.num_frames, self.num_frames)
            memory = scripted_memory(self.num_frames, path, digest)
            cache.put(key, memory)
            return memory

        return self._jobs.start(key, path, work, cache, keeps_running=keeps_running)

    def stream(self, memory, question, *, history=(), caller=None, max_new_tokens=512, stop=(), **_):
        words = list(self.words)[:max_new_tokens]
        state = AnswerState(question, lambda tokens: "".join(words[token] for token in tokens), stop)
        state.num_prompt_tokens = len(question)
        self._states.append(state)
        threading.Thread(target=self._write, args=(state, len(words), memory), daemon=True).start()
        return AnswerStream(state, lambda: None)

    def _write(self, state, num_words, memory):
        for token in range(num_words):
            while token and not (self.tokens_may_pass.is_set() or state.is_cancelled or state.has_ended):
                time.sleep(HELD_SECONDS)
            if state.has_ended:  # the model was closed
                return
            if state.is_cancelled:
                self.num_cancelled += 1
                state.finish("cancelled", [])
                return
            if self.ask_error is not None and token == 1:
                state.fail(self.ask_error)
                return
            state.put(token)
        state.finish("stop", [] if memory is None else [SPAN])

    def choose(self, memory, question, options, **_):
        self._wait_for_choices()
        return Choice(question, options[0], "A", [1.0] + [0.0] * (len(options) - 1), [] if memory is None else [SPAN])

    def find(self, memory, text):
        self._wait_for_choices()
        return [SPAN]

    def _wait_for_choices(self):
        while not self.choices_may_pass.wait(HELD_SECONDS):
            if self.is_closed:
                raise Cancelled("the model was closed meanwhile")

    def close(self):
        self.is_closed = True
        self._jobs.close()
        for state in self._states:
            if not state.has_ended:
                state.fail(Cancelled("the model was closed meanwhile"))


def scripted_memory(num_frames=8, name="a.mp4", digest="sha256:0"):
    times = np.arange(num_frames, dtype=np.float64)
    return Memory(
        torch.zeros(num_frames, *ENCODER.frame_shape).bfloat16(),
        times,
        times,
        fps=1.0,
        duration_seconds=float(num_frames),
        source=WatchedSource(name, digest),
        encoder=ENCODER,
        gaps=[(2.0, 3.0, "damaged")],
        player_offset_seconds=7.0,
    )
