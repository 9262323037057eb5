"""What YAML files say becomes objects or a sentence; every preset names what exists and is valid."""

import inspect
import sys
from pathlib import Path

import pytest
import yaml

from gradcam_bench import catalogue
from gradcam_bench.axes import AXES
from gradcam_bench.building import build, check_parameters, locate
from gradcam_bench.catalogue import (
    CONF,
    REDUCTIONS,
    about,
    method,
    metric,
    names,
    preset,
    spec,
)
from gradcam_bench.choices import Protocol, View
from gradcam_bench.errors import UserError

POINTING = "gradcam_bench.metrics.pointing.pointing_game"
GRAD_CAM = "gradcam_bench.methods.gradient.grad_cam"


@pytest.mark.parametrize("path", sorted((CONF / "preset").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset(path: Path) -> None:
    assert path.read_text().startswith("# @package preset\n")
    assert list(yaml.safe_load(path.read_text())) == [path.stem]
    made = preset(path.stem, spec("preset", path.stem))
    assert made.about
    assert made.metrics
    assert made.source or path.stem == "default", "a published recipe names its source"
    View().but(**made.view)
    Protocol(made.protocol)
    read = set()
    for label in made.metrics:
        assert label in names("metric")
        read |= set(metric(label, spec("metric", label)).reads)
    assert set(made.protocol) <= read, "an axis that none of its metrics reads says nothing"
    if path.stem != "default":
        geometry = {"rectify", "resize", "order", "normalize", "frame"} & read
        assert geometry <= set(made.protocol), "a published recipe spells out how its maps are prepared"


def test_the_default_preset_is_every_default() -> None:
    made = preset("default", spec("preset", "default"))
    assert (made.view, made.protocol) == ({}, {})


@pytest.mark.parametrize("group", ["method", "metric", "preset", "dataset", "model"])
def test_everything_listed_has_one_line_of_description(group: str) -> None:
    assert names(group) == sorted(p.stem for p in (CONF / group).glob("*.yaml"))
    for label in names(group):
        line = about(group, label)
        assert line, label
        assert "\n" not in line


def test_the_names_of_reductions_are_known_to_the_analysis() -> None:
    from gradcam_bench.analysis.reductions import REDUCTIONS as FUNCTIONS

    assert set(FUNCTIONS) <= set(REDUCTIONS)
    for label in names("metric"):
        assert metric(label, spec("metric", label)).reduce in FUNCTIONS, label


def test_a_method_from_a_mapping() -> None:
    made = method("mine", {"_target_": GRAD_CAM, "about": "x", "rectify": "abs", "version": 3})
    assert (made.label, made.takes, made.rectify, made.version, made.parameters) == (
        "mine",
        ("evidence",),
        "abs",
        3,
        {},
    )
    assert made.key() == ["mine", {}, 3]
    eigen = method("eigen", {"_target_": "gradcam_bench.methods.principal.eigen_cam", "center": True})
    assert (eigen.parameters, eigen.rectify, eigen.version) == ({"center": True}, "relu", 1)
    assert inspect.signature(eigen.function).parameters["center"].default is True


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "method x: its configuration has no _target_"),
        (
            {"_target_": "gradcam_bench.methods.gradient.grad_cm"},
            r"cannot import 'gradcam_bench\.methods\.gradient\.grad_cm'",
        ),
        ({"_target_": "gradcam_bench.nowhere.grad_cam"}, "cannot import"),
        ({"_target_": "torch.nn.functional"}, "is no function or class"),
        ({"_target_": "grad_cam"}, "cannot import 'grad_cam'"),
        ({"_target_": GRAD_CAM, "centre": True}, "unknown parameter of method x 'centre'"),
        ({"_target_": "gradcam_bench.methods.principal.eigen_cam", "centre": True}, "did you mean 'center'"),
        ({"_target_": GRAD_CAM, "rectify": "rellu"}, "did you mean 'relu'"),
    ],
)
def test_wrong_methods_are_sentences(given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        method("x", given)


def test_a_function_of_ones_own_is_found_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by `python -m`; the installed command has no such entry in its path."""
    (tmp_path / "own_in_here.py").write_text("def method(evidence): ...")
    (tmp_path / "own_but_wrong.py").write_text("def method(evidence:")
    (tmp_path / "own_without_key.py").write_text("{}['torch']")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.chdir(tmp_path)
    assert locate("own_in_here.method").__name__ == "method"
    for dotted, sentence in (
        ("own_in_here.methd", "has no attribute 'methd'"),
        ("own_but_wrong.method", "SyntaxError: "),
        ("own_without_key.method", "KeyError: 'torch'"),
        ("own_elsewhere.method", "No module named 'own_elsewhere'; it is looked for among what is installed"),
    ):
        with pytest.raises(UserError, match=f"cannot import '{dotted}': .*{sentence}"):
            locate(dotted)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tolerance": 3}, "metric x: unexpected 'tolerance'; a metric takes its choices from the protocol axes alone"),
        ({"reads": ["tolerence"]}, "did you mean 'tolerance'"),
        ({"unit": "cases"}, "did you mean 'case'"),
        ({"needs": "map"}, "did you mean 'maps'"),
        ({"reduce": "average"}, "unknown reduce of metric x 'average'"),
    ],
)
def test_wrong_metrics_are_sentences(given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        metric("x", {"_target_": POINTING, **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric": []}, "did you mean 'metrics'"),
        ({"view": {"sise": 3}}, "did you mean 'size'"),
        ({"view": {"resize": "warp"}}, "needs view.size"),
        ({"protocol": {"rule": "wsol_v3"}}, "unknown protocol.rule 'wsol_v3'"),
        ({"protocol": {"threshhold": 0.1}}, "did you mean 'threshold'"),
    ],
)
def test_wrong_presets_are_sentences(given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        preset("x", given)


def test_an_unknown_label_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown metric 'pointing_gme': did you mean 'pointing_game'"):
        spec("metric", "pointing_gme")
    with pytest.raises(UserError, match="unknown preset 'grad_cam_2018': did you mean 'grad_cam_2017'"):
        spec("preset", "grad_cam_2018")


def test_functions_that_take_anything_or_say_nothing_are_not_judged() -> None:
    check_parameters("x", lambda **anything: None, {"a": 1}, ())
    check_parameters("x", dict.fromkeys, {}, ())
    check_parameters("x", locate("collections.OrderedDict"), {"a": 1}, ())
    assert build("x", {"_target_": POINTING, "about": 1, "a": 2}, ("about",))[1] == {"a": 2}


def test_axes_say_who_owns_them_and_what_they_mean() -> None:
    for name, axis in AXES.items():
        assert axis.meaning, name
        assert (CONF.parent / "gradcam_bench" / axis.owner.replace(".", "/")).exists() or (
            CONF.parent / "gradcam_bench" / f"{axis.owner.replace('.', '/')}.py"
        ).exists(), name


@pytest.mark.parametrize("name", ["faithfulness", "seeds", "captions", "answers"])
def test_experiments_have_all_controls(name: str) -> None:
    controls = {label for label in catalogue.names("method") if catalogue.spec("method", label).get("control")}
    chosen = next(
        part["override /method"]
        for part in catalogue.spec("experiment", name)["defaults"]
        if "override /method" in part
    )
    assert controls == {"center", "constant", "edges", "input_intensity", "noise"}
    assert controls < set(chosen)


@pytest.mark.parametrize("name", ["sanity", "multiverse", "failures"])
def test_experiments_with_fewer_controls_say_why(name: str) -> None:
    (line,) = [
        line for line in (catalogue.CONF / "experiment" / f"{name}.yaml").read_text().splitlines() if "/method" in line
    ]
    assert "center" in line
    assert " # " in line
