"""Rows and folders that the shard tests share."""

from hourllava.data.mds.writer import ShardWriter

COLUMNS = {"video": "str", "text": "json"}


def video_rows(count):
    return [{"video": f"v/{k}.mp4", "text": {"id": k, "value": "é✓" * (k % 7)}} for k in range(count)]


def write(folder, rows, columns=COLUMNS, **options):
    """Write rows to a folder, with the lengths 1, 2, 3 if `lengths` is set."""
    with ShardWriter(folder, columns, **options) as writer:
        for row in rows:
            writer.write(row, [1, 2, 3] if options.get("lengths") else None)
    return folder


def contents(folder):
    """Every file of a folder: name -> bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
