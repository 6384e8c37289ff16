"""`hourllava data features --engine ray`: the same files, made by all devices of a Ray cluster.

pip install 'hourllava[ray]'
hourllava data features videos --model jylins/hourllava-qwen25-3b-s2 --out features --engine ray
"""

import contextlib
import functools
from collections.abc import Callable

from hourllava.cluster import Worker, results_of_cluster
from hourllava.data.features.items import Item
from hourllava.data.features.worker import Finished, WorkerSettings, extract


def run_on_ray(items: list[Item], workers: list[WorkerSettings], finished: Callable[[Finished], None]) -> None:
    """Encode the videos on the cluster and call `finished` in this process with each result.

    Raises:
        HourLlavaError: a worker cannot load the model or write features.
        DataError: a worker was lost.
    """
    of_cluster = [
        Worker(
            functools.partial(extract, worker),
            num_cpus=worker.decoders,
            num_gpus=int(worker.device != "cpu"),
            num_takers=worker.decoders,
        )
        for worker in workers
    ]
    videos = [(item.video, item.out) for item in items]
    with contextlib.closing(results_of_cluster(of_cluster, videos, len(videos))) as results:
        for result in results:
            finished(result)
