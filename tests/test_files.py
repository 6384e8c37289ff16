"""Files and folders that are whole or not there: after errors, kills and power cuts, and beside other processes."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from hourllava import files
from hourllava.files import remove_leftovers, replacing, replacing_folder


def test_a_file_is_on_the_disk_before_its_name_and_the_name_before_it_counts(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor):
        done.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        fsync(descriptor)

    def note_replace(path, target):
        done.append("replace")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("whole")
    assert done == [temporary.name, "replace", tmp_path.name]
    done.clear()
    with replacing(tmp_path / "b", durable=False) as temporary:
        temporary.write_text("whole")
    assert done == ["replace"]


def test_a_folder_that_cannot_be_flushed_is_no_error_but_a_broken_disk_is(tmp_path, monkeypatch):
    def failing(code):
        def fsync(descriptor):
            raise OSError(code, os.strerror(code))

        return fsync

    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("whole")
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="error"), replacing(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a").read_text() == "whole"


def test_two_that_make_one_file_do_not_meet(tmp_path):
    with replacing(tmp_path / "a[1]") as first, replacing(tmp_path / "a[1]") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "a[1]").read_text() == "1"
    (tmp_path / f"a[1].7-ab{files.TEMPORARY_SUFFIX}").touch()
    (tmp_path / f"a1.7-ab{files.TEMPORARY_SUFFIX}").touch()
    remove_leftovers(tmp_path, ["a[1]"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a1.7-ab{files.TEMPORARY_SUFFIX}", "a[1]"]


def write_folder(folder, text, then=lambda: None):
    with replacing_folder(folder) as partial:
        (partial / "inner").mkdir()
        (partial / "inner/a").write_text(text)
        then()


def fail():
    raise KeyError


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "made/checkpoint"
    write_folder(folder, "first")
    (folder / "extra").touch()
    write_folder(folder, "second")
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]
    assert [path.name for path in folder.iterdir()] == ["inner"]
    assert (folder / "inner/a").read_text() == "second"


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_that_fails_leaves_what_was_there(is_there, tmp_path):
    folder = tmp_path / "checkpoint"
    if is_there:
        write_folder(folder, "first")
    with pytest.raises(KeyError):
        write_folder(folder, "half", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"] * is_there
    if is_there:
        assert (folder / "inner/a").read_text() == "first"


@pytest.mark.parametrize("call", range(8))
def test_a_folder_killed_at_any_step_is_old_or_new(call, tmp_path, monkeypatch):
    """Steps after the block: flush a file and two folders, rename twice, flush the parent, remove the old folder."""
    folder, calls = tmp_path / "checkpoint", []
    write_folder(folder, "first")
    rename, remove, flush = Path.rename, shutil.rmtree, files.flush_to_disk

    def killing(real):
        def step(*arguments, **options):
            calls.append(real)
            if len(calls) > call:  # from here on nothing of this process happens
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return step

    def kill_soon():
        monkeypatch.setattr(Path, "rename", killing(rename))
        monkeypatch.setattr(shutil, "rmtree", killing(remove))
        monkeypatch.setattr(files, "flush_to_disk", killing(flush))

    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, "second", kill_soon)
    monkeypatch.undo()
    with pytest.raises(KeyError):
        write_folder(folder, "third", fail)  # the next run puts in order what the killed one left
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert (folder / "inner/a").read_text() == ("second" if call > 4 else "first")


def test_a_folder_and_all_in_it_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    done = []
    rename = Path.rename
    monkeypatch.setattr(files, "flush_to_disk", lambda path: done.append(path.name))
    monkeypatch.setattr(Path, "rename", lambda path, target: [done.append("rename"), rename(path, target)])
    write_folder(tmp_path / "checkpoint", "text")
    assert done == ["inner", "a", ".checkpoint.partial", "rename", tmp_path.name]
