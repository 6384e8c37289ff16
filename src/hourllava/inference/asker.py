"""Questions become requests to the scheduler, about memories as they are at the call."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch

from hourllava.choices import LETTERS, choice_prompt
from hourllava.errors import InputError
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.ready import ReadyMemories
from hourllava.inference.questions.answers import Choice
from hourllava.inference.questions.evidence import Span
from hourllava.inference.questions.options import AskSettings, History
from hourllava.inference.questions.prompt import Context, Prompt, PromptMaker, checked_question
from hourllava.inference.questions.text import whole_text
from hourllava.inference.queues import Question
from hourllava.inference.scheduler import Scheduler
from hourllava.inference.streams import AnswerState
from hourllava.inference.watching.frame_encoder import FrameEncoder
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.processor import HourLlavaProcessor


class Asker:
    """Asks one model about memories. All methods may be called from any thread.

    Args:
        model: in evaluation mode, on its device.
        processor: of the same model.
        scheduler: owns the device.
        encoder: the model's tower; memories of another one are refused.
        ready: memories for further questions; only the scheduler's thread uses them.

    Attributes:
        ready: as given.
    """

    def __init__(
        self,
        model: HourLlavaForConditionalGeneration,
        processor: HourLlavaProcessor,
        scheduler: Scheduler,
        encoder: FrameEncoder,
        ready: ReadyMemories,
    ) -> None:
        self.ready = ready
        self._model, self._processor, self._scheduler = model, processor, scheduler
        self._encoder = encoder
        scheduler.free_at_end(ready)
        self._prompts = PromptMaker(model, processor)

    def begin(
        self,
        memory: Memory | None,
        question: str,
        history: History,
        settings: AskSettings,
        *,
        waits: bool,
        caller: Hashable = None,
    ) -> AnswerState:
        """Put a question into the queue; see `HourLlava.stream`.

        Args:
            memory, question, history: as for `HourLlava.ask`.
            settings: its options.
            waits: whether to wait while the queue is full.
            caller: takes turns with others.
        """
        question = checked_question(question)
        # Copies: the caller may change its lists before they are read.
        history = tuple((earlier, answer) for earlier, answer in history)
        context = Context(history, tuple(settings.subtitles), settings.subtitle_tokens)
        state = AnswerState(question, self._processor.decode, settings.stop)
        make_prompt = self._prompt_maker(memory, question, question, context)
        waiting = Question(make_prompt, state, settings.max_new_tokens, settings.sampling)
        self._scheduler.ask(waiting, caller, waits=waits)
        return state

    def choose(self, memory: Memory | None, question: str, options: Sequence[str], context: Context) -> Choice:
        """See `HourLlava.choose`."""
        question = checked_question(question)
        context = dataclasses.replace(context, subtitles=tuple(context.subtitles))
        if not 2 <= len(options) <= len(LETTERS):
            raise InputError(f"a choice needs 2 to {len(LETTERS)} options, got {len(options)}")
        options = [whole_text(option) for option in options]
        if not all(option.strip() for option in options):
            raise InputError("an option is empty; give each a text")
        letters = LETTERS[: len(options)]
        letter_ids = [self._processor.tokenizer(letter, add_special_tokens=False).input_ids[0] for letter in letters]
        make_prompt = self._prompt_maker(memory, question, choice_prompt(question, options), context)

        def work() -> tuple[list[float], list[Span]]:
            prompt = make_prompt()
            logits_V = self._scheduler.next_logits(prompt)
            prompt.launch_evidence()
            return logits_V[letter_ids].float().softmax(-1).tolist(), prompt.evidence()

        probabilities, evidence = self._scheduler.run(work)
        best = int(np.argmax(probabilities))
        return Choice(question, options[best], letters[best], probabilities, evidence)

    def find(self, memory: Memory, text: str) -> list[Span]:
        """See `HourLlava.find`."""
        text = checked_question(text)
        make_prompt = self._prompt_maker(memory, text, text, Context())
        return self._scheduler.run(lambda: make_prompt().evidence())

    def release(self) -> None:
        """See `HourLlava.release`."""

        def work() -> None:
            self.ready.release()
            self._scheduler.release_rows()
            if self._model.device.type == "cuda":
                torch.cuda.empty_cache()

        self._scheduler.run(work)

    def _prompt_maker(self, memory: Memory | None, question: str, text: str, context: Context) -> Callable[[], Prompt]:
        """Work for the scheduler's thread: the prompt, about the memory as it is now."""
        if memory is None:
            return lambda: self._prompts.prompt(None, question, text, context)
        snapshot = memory.snapshot()
        if not len(snapshot):
            raise InputError(f"the memory of {snapshot.source.file_name} holds no frames yet; watch something first")
        snapshot.check_fits(self._encoder.identity)

        def make() -> Prompt:
            snapshot.check_file_unchanged()
            return self._prompts.prompt(self.ready.get(memory, snapshot), question, text, context)

        return make
