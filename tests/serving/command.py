"""The real server, `hourllava serve`, in a process of its own: to be killed, starved and stopped."""

import contextlib
import hashlib
import signal
from pathlib import Path

import httpx2

from conftest import tiny_checkpoint
from forking import COMMAND, environment, start_python
from running import is_left
from serving import waiting


def until(condition, seconds=20.0):
    """See `waiting.until`; a process is slower than a task."""
    return waiting.until(condition, seconds)


class Command:
    """`hourllava serve` with a tiny model, in a process of its own.

    Args:
        folder: for its store and its cache.
        options: of the command.
        first: code that its process runs before.
        seconds: that it may take to start.
        variables: of its environment.
    """

    def __init__(self, folder: Path, *options: object, first: str = "", seconds: float = 60, **variables: str) -> None:
        self._process = start_python(
            f"{first}\n{COMMAND}",
            *("serve", "--port", 0, "--model", tiny_checkpoint(), "--device", "cpu", "--store", folder / "store"),
            *options,
            env=environment(folder / "cache", **variables),
        )
        self.mark = str(folder / "cache")
        until(lambda: "http://" in self._process.stdout or self._process.poll() is not None, seconds)
        assert self._process.poll() is None, self._process.stderr
        self.url = self._process.stdout.split()[0]
        self.http = httpx2.Client(base_url=self.url, timeout=30)
        self.uploads = folder / "store" / "uploads"

    @property
    def pid(self):
        return self._process.pid

    def ended(self, seconds=60):
        """The exit code, when it has ended by itself."""
        return self._process.wait(seconds)

    def send_signal(self, number):
        self._process.send_signal(number)

    def kill(self, number=signal.SIGKILL, seconds=60):
        self._process.send_signal(number)
        return self._process.wait(seconds)

    @property
    def stderr(self):
        return self._process.stderr

    def __enter__(self):
        return self

    def __exit__(self, *arguments):
        self.http.close()
        self._process.__exit__(*arguments)


def processes_of(command):
    """Processes that the command, or one that it started, has begun."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and command.mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return [process for process in found if is_left(process)]


def sound(command):
    """Every file that is listed is whole, and nothing else lies beside them."""
    files = command.http.get("/v1/files", params={"limit": 1000}).json()["data"]
    for file in files:
        content = command.http.get(f"/v1/files/{file['id']}/content").content
        assert len(content) == file["bytes"]
        record = (command.uploads / file["id"] / "record.json").read_text()
        assert hashlib.sha256(content).hexdigest() in record
    assert {path.name for path in command.uploads.iterdir()} == {file["id"] for file in files}
    return files
