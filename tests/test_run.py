"""The frame around a lab: profiles, recorded metrics, bars, strict mode, numerics."""

import contextlib
import json
import os
import subprocess
import sys

import labkit
from labkit import machine, paths, results, schedules
from labkit import run as run_module

import keras
import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "probe", lambda: {"float32": 100.0, "mixed_bfloat16": 300.0})
    return labkit.start("02_house_prices")


@pytest.fixture
def narrow(monkeypatch):
    """Accept 1 to 2 for `error`, and nothing else."""
    monkeypatch.setattr(run_module, "bars", lambda *_: {"error": {"min": 1.0, "max": 2.0}})


def test_unknown_profile_names_the_choices(monkeypatch):
    monkeypatch.setenv("LABS_PROFILE", "fast")
    with pytest.raises(ValueError, match="quick, standard, full"):
        labkit.start("02_house_prices")


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [("LABS_SEED", "abc", "a whole number"), ("LABS_NUMERICS", "float33", "mixed_bfloat16")],
)
def test_wrong_setting_is_named(monkeypatch, name, value, advice):
    monkeypatch.setattr(machine, "probe", lambda: {"float32": 100.0})
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name} is '{value}'; .*{advice}"):
        labkit.start("02_house_prices")


def test_work_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    place = tmp_path / "file" / "x.json"
    with pytest.raises(OSError, match=r"exists: '.*x.json'"):
        paths.write(place, b"{}")
    monkeypatch.setenv("LABS_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"set LABS_HOME .*x.json"):
        paths.write(place, b"{}")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "{outside}", "run *", "lr [8]"])
def test_a_training_has_a_plain_name(run, tmp_path, name):
    outside = tmp_path / "thesis"
    logs = run.log_dir / "model-1"
    for folder in (outside, logs):
        folder.mkdir(parents=True)
        (folder / "kept.txt").write_text("x")
    with pytest.raises(ValueError, match="a training cannot be called"):
        run.callbacks(name.format(outside=outside))
    assert (outside / "kept.txt").exists()
    assert (logs / "kept.txt").exists()


def test_forget_takes_the_named_trainings_or_all(run):
    files = {name: run._state(name) for name in ("model-1", "model-10", "best (2)")}
    for file in files.values():
        paths.write(file, b"x")
    run.forget("best (2)", "model-1", "never trained")
    assert [name for name, file in files.items() if file.exists()] == ["model-10"]
    run.forget()
    assert not files["model-10"].exists()


def test_scale_wants_every_profile(run):
    assert run.scale(quick=1, standard=2, full=3) == 1
    with pytest.raises(ValueError, match="quick, standard, full"):
        run.scale(quick=1, standard=2)


@pytest.mark.parametrize(("profile", "left"), [("quick", True), ("standard", False)])
def test_only_quick_leaves_graphs_and_pipelines_as_they_are(monkeypatch, profile, left):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("on a GPU graphs are rewritten in every profile")
    monkeypatch.setenv("LABS_PROFILE", profile)
    monkeypatch.setattr(machine, "probe", lambda: {"float32": 100.0})
    labkit.start("02_house_prices")
    assert tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"] == left
    begun = []
    monkeypatch.setattr(run_module, "_iterate", lambda dataset: begun.append(dataset) or iter([]))
    kept = tf.data.Options()
    kept.experimental_optimization.apply_default_optimizations = False
    for dataset in (tf.data.Dataset.range(3), tf.data.Dataset.range(3).with_options(kept)):
        iter(dataset)
    rewritten = [d.options().experimental_optimization.apply_default_optimizations for d in begun]
    assert rewritten == [False if left else None, False]


def test_no_pipeline_waits_for_its_tuner(run, monkeypatch):
    begun = []
    monkeypatch.setattr(run_module, "_iterate", lambda dataset: begun.append(dataset) or iter([]))
    options = tf.data.Options()
    options.deterministic = False
    iter(tf.data.Dataset.range(3).with_options(options))
    assert [one.options().autotune.enabled for one in begun] == [False]
    assert begun[0].options().deterministic is False


def test_fast_sets_the_fastest_policy_and_takes_it_back(run):
    with run.fast():
        assert keras.layers.Dense(1).compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    assert run.numerics == "mixed_bfloat16"


def test_status_line_scales_the_committed_seconds(run, monkeypatch):
    numerics = "mixed_bfloat16"
    reference = {"seconds": 120.0, "numerics": numerics, "machine": {"gflops": 600.0}}
    monkeypatch.setattr(run_module, "committed", lambda *_: reference)
    assert "about 4 min here" in run.status()


@pytest.mark.parametrize(("wanted", "found"), [(None, "1"), ("0", "0")])
def test_onednn_is_on_unless_somebody_turned_it_off(wanted, found):
    environment = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    if wanted:
        environment["TF_ENABLE_ONEDNN_OPTS"] = wanted
    code = "import labkit, os; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, env=environment, text=True).strip() == found


def test_imitated_old_processor_gets_no_bfloat16(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setattr(machine, "_has_bfloat16", lambda: True)
    assert machine._candidates() == ["float32"]
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert machine._candidates() == ["float32", "mixed_bfloat16"]


def test_record_keeps_mean_spread_and_number(run):
    run.record(error=[1.0, 2.0, 3.0], accuracy=0.5)
    assert run.metrics == {"error": {"value": 2.0, "spread": 1.0, "seeds": 3}, "accuracy": 0.5}
    with pytest.raises(ValueError, match="loss is not finite"):
        run.record(loss=float("nan"))


@pytest.mark.parametrize("value", [0.5, 2.5])
def test_metric_outside_its_bar_raises_when_strict(run, narrow, value):
    run.record(error=value)
    with pytest.raises(AssertionError, match="error"):
        run.check()


def test_metric_that_was_not_recorded_raises_when_strict(run, narrow):
    with pytest.raises(AssertionError, match="not recorded"):
        run.check()


def test_student_is_told_and_not_stopped(run, narrow, monkeypatch, capsys):
    for name in ("LABS_STRICT", "CI", "PYTEST_CURRENT_TEST"):
        monkeypatch.delenv(name, raising=False)
    run.record(error=2.5)
    run.check()
    assert "error = 2.5, accepted 1 to 2" in capsys.readouterr().out


def test_check_writes_the_result(run, narrow, tmp_path):
    run.record(error=1.5)
    run.check()
    result = json.loads((tmp_path / "results" / "02_house_prices.quick.json").read_text())
    assert result["metrics"] == {"error": 1.5}
    assert result["seconds"] > 0
    assert result["peak_memory_mb"] > 100
    assert result["machine"]["gflops"] == 100.0  # of float32, which it was computed in


@pytest.mark.parametrize(("value", "kept"), [(1.5, False), (2.5, True)])
def test_trainings_are_kept_only_for_a_refused_result(run, narrow, value, kept):
    (training,) = run.callbacks("model-1")[-1:]
    paths.write(training.file, b"x")
    run.record(error=value)
    with contextlib.suppress(AssertionError):
        run.check()
    assert training.file.exists() == kept


def test_table_shows_book_standard_and_this_run(run):
    run.record(relative_error_model_1=[13.0, 14.0])
    row = run.table().loc["relative_error_model_1"]
    assert row["book"] == "14.08"
    assert row["this run (quick)"] == "13.5 ± 0.71"


def test_bars_of_other_numerics_replace_single_metrics(tmp_path, monkeypatch):
    file = tmp_path / "bars.toml"
    text = (
        "[lab.quick]\na = {min = 1}\nb = {max = 2}\n[lab.quick.mixed_bfloat16]\na = {min = 0.9}\n"
    )
    file.write_text(text)
    monkeypatch.setattr(results, "BARS", file)
    assert results.bars("lab", "quick") == {"a": {"min": 1}, "b": {"max": 2}}
    assert results.bars("lab", "quick", "mixed_bfloat16") == {"a": {"min": 0.9}, "b": {"max": 2}}


def test_probe_measures_and_remembers(tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    first = machine.probe()
    assert np.isfinite(list(first.values())).all()
    monkeypatch.setattr(machine, "_gflops", None)
    assert machine.probe() == first


@pytest.mark.parametrize("damage", ["null", "[]", "{"])
def test_damaged_memory_of_the_probe_is_made_anew(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "_gflops", lambda policy: 7.0)
    (tmp_path / "machine.json").write_text(damage)
    assert machine.probe()["float32"] == 7.0


def test_ceiling_is_measured_for_each_shape():
    found = machine.ceiling("float32", [(2, 8, 8), (4, 4, 8)], repeats=1)
    assert list(found) == ["2×8×8", "4×4×8"]
    assert min(found.values()) > 0


def test_one_cycle_climbs_to_its_peak_and_falls_to_zero():
    rate = schedules.one_cycle(peak=0.5, steps=100, climb=0.2)
    rates = [float(rate(step)) for step in range(101)]
    assert rates[0] == pytest.approx(0.05)
    assert np.argmax(rates) == 20
    assert rates[20] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="2 steps"):
        schedules.one_cycle(0.5, steps=1)
