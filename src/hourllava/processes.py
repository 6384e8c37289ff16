"""Worker processes that do not outlive who started them."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this worker when its parent is killed: it would wait for work for ever, or write where the next run does."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
