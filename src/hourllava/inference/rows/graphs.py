"""CUDA graphs of work on fixed addresses: captured once, then replayed with one launch."""

import threading
from collections.abc import Callable
from typing import Any

import torch

# CUDA allows one capture at a time in a process.
_one_capture_at_a_time = threading.Lock()


def captured(run: Callable[[], object], device: torch.device, pool: Any = None) -> torch.cuda.CUDAGraph:
    """A graph of `run`, which runs once for practice; the caller undoes the changes of that.

    In that run libraries choose their kernels and allocate their workspaces, which a graph may not do.

    Args:
        run: work that allocates nothing outside the graph's memory, and whose results stay referenced.
        device: of the work.
        pool: memory of another graph to share, which then is never replayed while this one's results are needed.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use CUDA meanwhile.
    with _one_capture_at_a_time, torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        run()
    return graph
