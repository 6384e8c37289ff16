"""Several processes: lmms-eval deals single questions to them in turn, so the questions about one video would be asked
in all of them, and each would watch it.

Before anything is asked, the processes exchange what they were dealt; each answers whole videos, and gives the answers
back to the process that was dealt the question. Every process must take part, so lmms-eval's `--use_cache`, which skips
some of them, is refused.
"""

import sys
from collections.abc import Callable, Sequence

import torch.distributed as dist

from hourllava.errors import ConfigError
from hourllava.evaluation.lmms_eval.requests import Reply, Request, grouped

Answer = Callable[[Sequence[Request]], list[Reply]]


def check_cache(arguments: Sequence[str] = sys.argv) -> None:
    """Refuse `--use_cache` where several processes exchange their requests.

    Raises:
        ConfigError: it is among the arguments.
    """
    if any(argument.partition("=")[0] == "--use_cache" for argument in arguments):
        raise ConfigError(
            "--use_cache does not go with several processes: a process whose answers are all cached would take no part "
            "in the exchange of questions. Use memories=FOLDER in --model_args, or one process"
        )


def share_of(requests: Sequence[Request], rank: int, num_ranks: int) -> list[Request]:
    """The different requests that one process answers: of the videos in order of their first request, every N-th."""
    videos = grouped(dict.fromkeys(requests), lambda request: request.video)
    return [request for asked in list(videos.values())[rank::num_ranks] for request in asked]


def answer_shared(requests: Sequence[Request], answer: Answer) -> list[Reply]:
    """The replies to this process's requests, each video watched in one process only.

    Args:
        requests: that this process was dealt, in order.
        answer: answers some requests in this process.
    """
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    dealt: list[Sequence[Request]] = [[] for _ in range(num_ranks)]
    dist.all_gather_object(dealt, list(requests))
    own = share_of([request for some in dealt for request in some], rank, num_ranks)
    answered: list[dict[Request, Reply]] = [{} for _ in range(num_ranks)]
    dist.all_gather_object(answered, dict(zip(own, answer(own))))
    replies = {request: reply for some in answered for request, reply in some.items()}
    return [replies[request] for request in requests]
