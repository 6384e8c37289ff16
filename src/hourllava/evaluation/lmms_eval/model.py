"""The classes that lmms-eval loads: `--model hourllava`, and with `--force_simple` the simple one.

    --model_args model=nano,device=cpu,dtype=float32,memories=FOLDER

Log-likelihoods are not offered: lmms-eval 0.7.1 to 0.7.3 turns them into texts and then fails. The most probable letter
is in our own runner, `hourllava eval NAME --protocol likelihood`.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.accelerator import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms

from hourllava.errors import ConfigError, InputError
from hourllava.evaluation.lmms_eval.ranks import answer_shared, check_cache
from hourllava.evaluation.lmms_eval.requests import Reply, Request, answer_requests, request_of
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.cache import MemoryCache

KEEP_ALL_BYTES = 2**62


class _HourLlava(lmms):
    """What both classes share.

    Args:
        model, device, dtype: as `HourLlava.from_pretrained`; with several processes each takes its own device.
        memories: folder for memories, which later runs use; None keeps none.
        more: `batch_size` and the like, which lmms-eval gives to every model.

    Raises:
        ConfigError: an argument is unknown.
        Also all errors of `HourLlava.from_pretrained`.
    """

    def __init__(
        self,
        model: str = "nano",
        device: str | None = None,
        dtype: str | None = None,
        memories: str | None = None,
        **more: Any,
    ) -> None:
        super().__init__()
        unknown = more.keys() - {"batch_size", "max_batch_size"}
        if unknown:
            raise ConfigError(f"--model_args has {min(unknown)}; use some of: model, device, dtype, memories")
        self.accelerator = Accelerator(cpu=device == "cpu")
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        if self._world_size > 1:
            check_cache()
            device = str(self.accelerator.device)
        self.engine = HourLlava.from_pretrained(model, device=device, dtype=dtype)
        self._cache = None if memories is None else MemoryCache(Path(memories), max_bytes=KEEP_ALL_BYTES)

    @property
    def device(self) -> Any:
        """Where the harness gathers numbers of several processes."""
        return self.accelerator.device

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answers to all requests of all tasks, in their order; each video is watched once."""
        seen: Counter[Request] = Counter()
        asked: list[Request] = []
        for instance in requests:
            prompt, visuals, options = self._content(instance)
            request = request_of(prompt, visuals, options)
            if request.way.temperature:
                seen[request] += 1
                request = request_of(prompt, visuals, options, repeat=seen[request] - 1)
            asked.append(request)
        replies = self._replies(asked)
        if failed := Counter(reply.error for reply in replies if reply.error):
            (reason, _), *_ = failed.most_common(1)
            print(
                f"{failed.total():,} of {len(replies):,} questions have no answer and count as wrong. The most "
                f"frequent reason: {reason}",
                file=sys.stderr,
            )
        return [
            GenerationResult(reply.text, TokenCounts(reply.num_prompt_tokens, reply.num_new_tokens))
            for reply in replies
        ]

    def _replies(self, asked: Sequence[Request]) -> list[Reply]:
        def answer(some: Sequence[Request]) -> list[Reply]:
            return answer_requests(self.engine, some, cache=self._cache, progress=self._rank == 0)

        return answer_shared(asked, answer) if self._world_size > 1 else answer(asked)

    def _content(self, instance: Instance) -> tuple[str, list[Any], dict[str, Any]]:
        raise NotImplementedError

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Not offered; see the head of this file."""
        raise NotImplementedError(
            "lmms-eval 0.7.1 to 0.7.3 cannot use log-likelihoods; use hourllava eval NAME --protocol likelihood"
        )

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Not offered."""
        raise NotImplementedError("tasks of several rounds are not supported; ask each question on its own")

    def clean(self) -> None:
        """Free the device before a judge is loaded."""
        self.engine.close()


class HourLlavaChat(_HourLlava):
    """The model for chat requests: messages with a video and a text."""

    is_simple = False

    def _content(self, instance: Instance) -> tuple[str, list[Any], dict[str, Any]]:
        _, doc_to_messages, options, doc_id, task, split = instance.args
        messages = doc_to_messages(self.task_dict[task][split][doc_id])
        texts, visuals = [], []
        for message in messages:
            if message["role"] == "assistant":
                raise InputError("a request has turns of an assistant; this model is asked one question at a time")
            content = message["content"]
            for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
                if part["type"] == "text":
                    texts.append(part["text"])
                else:
                    visuals.append(part["url"])
        return "\n".join(text for text in texts if text), visuals, options


class HourLlavaSimple(_HourLlava):
    """The model for simple requests: a text, and a function that gives the video of a document."""

    is_simple = True

    def _content(self, instance: Instance) -> tuple[str, list[Any], dict[str, Any]]:
        prompt, options, doc_to_visual, doc_id, task, split = instance.args
        return prompt, list(doc_to_visual(self.task_dict[task][split][doc_id]) or ()), options
