"""Comparing the contents of folders."""

import hashlib
from pathlib import Path


def digests(folder: Path) -> dict[str, str]:
    """Path below the folder -> digest of the content, for all files."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
