"""Tests of tools/workcopy.py: what a student wrote is never lost."""

import json

from tools.workcopy import update

import pytest


@pytest.fixture
def labs(tmp_path):
    source, target = tmp_path / "labs", tmp_path / "work" / "labs"
    source.mkdir()
    (source / "02_houses.ipynb").write_bytes(b"first\n")
    return source, target


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.ipynb")}


def test_labs_are_copied_once(labs):
    source, target = labs
    (source / "notes.txt").write_text("not a lab")
    assert update(source, target) == ["New: 02_houses.ipynb"]
    assert contents(target) == {"02_houses.ipynb": b"first\n"}
    assert update(source, target) == []
    assert sorted(path.name for path in target.iterdir()) == [".copied.json", "02_houses.ipynb"]


def test_an_untouched_copy_is_renewed(labs):
    source, target = labs
    update(source, target)
    (source / "02_houses.ipynb").write_bytes(b"second\n")
    assert update(source, target) == ["New: 02_houses.ipynb"]
    assert contents(target) == {"02_houses.ipynb": b"second\n"}


def test_a_changed_copy_stays_and_each_newer_lab_lies_beside_it_once(labs):
    source, target = labs
    update(source, target)
    (target / "02_houses.ipynb").write_bytes(b"my work\n")
    assert update(source, target) == []
    for version in (b"second\n", b"third\n"):
        (source / "02_houses.ipynb").write_bytes(version)
        (line,) = update(source, target)
        assert line.endswith("your changed 02_houses.ipynb stays as it is")
        assert update(source, target) == []
    found = contents(target)
    assert found.pop("02_houses.ipynb") == b"my work\n"
    assert all(name.startswith("02_houses.new-") for name in found)
    assert sorted(found.values()) == [b"second\n", b"third\n"]


def test_work_in_a_copy_laid_beside_survives_a_lost_record(labs):
    source, target = labs
    update(source, target)
    (target / "02_houses.ipynb").write_bytes(b"my work\n")
    (source / "02_houses.ipynb").write_bytes(b"second\n")
    update(source, target)
    (beside,) = target.glob("*.new-*.ipynb")
    beside.write_bytes(b"more of my work\n")
    (target / ".copied.json").unlink()
    assert update(source, target) == []
    assert sorted(contents(target).values()) == [b"more of my work\n", b"my work\n"]


@pytest.mark.parametrize("record", [b"", b'{"02_houses.ipynb": "12'])
def test_a_broken_record_loses_nothing(labs, record):
    source, target = labs
    target.mkdir(parents=True)
    (target / ".copied.json").write_bytes(record)
    (target / "02_houses.ipynb").write_bytes(b"my work\n")
    update(source, target)
    assert sorted(contents(target).values()) == [b"first\n", b"my work\n"]
    assert "02_houses.ipynb" in json.loads((target / ".copied.json").read_text())


def test_an_interrupted_call_is_completed(labs, monkeypatch):
    source, target = labs
    (source / "04_images.ipynb").write_bytes(b"images\n")
    real = type(target).replace

    def stop_at_second(self, goal):
        if goal.name.startswith("04"):
            raise KeyboardInterrupt
        return real(self, goal)

    with monkeypatch.context() as patch:
        patch.setattr(type(target), "replace", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            update(source, target)
    assert contents(target) == {"02_houses.ipynb": b"first\n"}
    assert update(source, target) == ["New: 04_images.ipynb"]
    assert len(contents(target)) == 2


def test_a_deleted_copy_comes_back(labs):
    source, target = labs
    update(source, target)
    (target / "02_houses.ipynb").unlink()
    assert update(source, target) == ["New: 02_houses.ipynb"]
