"""Thresholds are used with the images and conversations that they were calibrated with."""

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from analysis.tables.commands import calibration
from analysis.tables.layouts import layouts
from experiments import tuned_table, vtw_layer
from experiments.checks.run_checks import checked
from experiments.checks.thresholds import made_for, require_matching_model
from mustdrop.calibration.search import OutOfReach
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import preset_names
from mustdrop.presets.from_budget import budget_floor
from mustdrop.presets.tuned import inputs_of

LLAVA = ("model=llava15_7b", "benchmark=gqa", "method=mustdrop", "budget=t64")
TEMPLATE = "{% for message in messages %}\n{{ message.role }}: a, b {# x #}\n{% endfor %}"


def refused(*overrides):
    """Message of the error that a run with these overrides ends in."""
    with pytest.raises(ValueError) as error:
        checked(composed(*overrides), overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def command_in(message):
    """Overrides of the calibration command in a message."""
    return message.partition("(mustdrop calibrate ")[2].partition(")")[0].split()


@pytest.fixture
def calibrated(tmp_path, monkeypatch):
    """Function that writes the row of a calibration with these overrides to the user's table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuned_table, "tuned_dir", lambda: tmp_path / "conf" / "tuned")
    choices = {"vision": "local_merge", "prefill": "dual_attention"}
    hydra = {"runtime": {"choices": choices}, "overrides": {"task": []}}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(hydra))

    def write(gamma, *overrides):
        values = (f"prefill.gamma={gamma}", "prefill.alpha=0.01")
        cfg = composed(*LLAVA, *values, *overrides, name="calibrate")
        tuned_table.require_free(cfg, "prefill.gamma")
        made = made_for(cfg)
        row = {
            "strategy": "dual_attention", "benchmark": "gqa", "budget": "t64",
            "values": {"gamma": gamma, "alpha": 0.01}, **made,
        }  # fmt: skip
        tuned_table.write_row(tuned_table.table_path(cfg), row, "llava15_7b")
        return yaml.safe_load(tuned_table.table_path(cfg).read_text())

    return write


@pytest.mark.parametrize(
    ("made", "run", "expected"),
    [
        ((), ("inputs=authors",), "inputs with model.resize=hub and model.system=null, not for"),
        (("inputs=authors",), (), "inputs with model.resize=pad and model.system='A chat between "),
        ((), ("model.resize=pad",), "model.resize=hub, not for those with model.resize=pad: cal"),
        (("model.max_pixels=9",), (), "model.max_pixels=9, not for those with model.max_pixels=nu"),
        ((), ("model.template=x",), "model.template=null, not for those with model.template=x: "),
    ],
)
def test_a_run_with_other_inputs_is_refused_with_the_command_that_calibrates(
    calibrated, made, run, expected
):
    calibrated(2e-3, *made)
    assert checked(composed(*LLAVA, *made))["prefill"]["gamma"] == 2e-3
    message = refused(*LLAVA, *run)
    assert message.startswith("prefill.gamma 0.002 and prefill.alpha 0.01 of conf/tuned were made ")
    assert expected in message
    cfg = composed(*command_in(message), name="calibrate")
    assert inputs_of(cfg.model) == inputs_of(composed(*LLAVA, *run).model)
    by_hand = ("prefill.gamma=2e-3", "prefill.alpha=1e-2")
    assert checked(composed(*LLAVA, *run, *by_hand))


def test_a_table_holds_a_row_for_each_kind_of_inputs(calibrated):
    calibrated(2e-3)
    calibrated(3e-3, "inputs=authors")
    rows = calibrated(4e-3, f"model.template='{TEMPLATE}'")
    assert len(rows) == 3 and rows[2]["inputs"]["template"] == TEMPLATE
    assert rows[1]["inputs"]["system"] == composed(*LLAVA, "inputs=authors").model.system
    for inputs, gamma in (("hub", 2e-3), ("authors", 3e-3)):
        config = checked(composed(*LLAVA, f"inputs={inputs}"))
        assert config["prefill"]["gamma"] == gamma
    rows = calibrated(5e-3, "inputs=authors")  # takes the place of its own earlier row
    assert [row["values"]["gamma"] for row in rows] == [2e-3, 5e-3, 4e-3]


def test_a_floor_holds_for_its_question_inputs(calibrated):
    calibrated(2e-3)
    cfg = composed(*LLAVA, "prefill.alpha=0.01", "prefill.gamma=1.0", name="calibrate")
    done = tuned_table.Calibrated(OutOfReach(70.0, 64.0), None, 1, 1.0)
    row = tuned_table.calibrated_row(cfg, "prefill.gamma", done)
    tuned_table.write_row(tuned_table.table_path(cfg), row, "llava15_7b")
    assert budget_floor(checked(composed(*LLAVA))) == 70
    assert "prefill.gamma has no value and prefill.alpha" in refused(*LLAVA, "inputs=authors")


def test_a_row_without_inputs_is_one_of_the_defaults():
    assert checked(composed("budget=t128"))["prefill"]["gamma"] == 3.083e-3
    assert checked(composed("budget=t128", "inputs=authors"))  # pocket has one kind of inputs
    message = refused("budget=t128", "model.resize=pad", "vision.tau=60.0")
    assert "were made for inputs with model.resize=hub" in message
    assert "model.resize=pad" in command_in(message)
    cfg = composed("budget=t128", "model.resize=pad", name="calibrate")
    with pytest.raises(ValueError, match=r"vision\.tau 66 of conf/tuned was made for inputs with"):
        require_matching_model(cfg, "prefill.gamma")


def test_a_table_holds_a_row_for_each_checkpoint(calibrated):
    other = "model.pretrained=owner/x"
    calibrated(2e-3)
    assert len(calibrated(3e-3, other)) == 2
    assert checked(composed(*LLAVA))["prefill"]["gamma"] == 2e-3
    assert checked(composed(*LLAVA, other))["prefill"]["gamma"] == 3e-3
    # a floor of one checkpoint is not that of another
    cfg = composed(*LLAVA, other, "prefill.alpha=0.01", "prefill.gamma=1.0", name="calibrate")
    done = tuned_table.Calibrated(OutOfReach(70.0, 64.0), None, 1, 1.0)
    row = tuned_table.calibrated_row(cfg, "prefill.gamma", done)
    tuned_table.write_row(tuned_table.table_path(cfg), row, "llava15_7b")
    assert budget_floor(checked(composed(*LLAVA, other))) == 70
    assert checked(composed(*LLAVA))["prefill"]["gamma"] == 2e-3
    assert "were made for the model" in refused(*LLAVA, "model.pretrained=owner/y")


def test_published_thresholds_of_another_checkpoint_are_searched_anew():
    given = ["model=llava15_7b", "benchmark=textvqa", "method=mustdrop", "budget=t64"]
    cfg = composed(*given, "model.pretrained=owner/x", "prefill.alpha=0.01", name="calibrate")
    require_matching_model(cfg, "prefill.gamma")
    with pytest.raises(ValueError, match=r"prefill\.gamma .* was made for the model llava-hf"):
        require_matching_model(cfg, "prefill.alpha")


def test_the_published_thresholds_are_used_with_both_kinds():
    for inputs in ("hub", "authors"):
        for method in ("mustdrop", "mustdrop_official"):
            cfg = composed(
                "model=llava15_7b", "benchmark=textvqa", f"method={method}", "budget=t128",
                f"inputs={inputs}",
            )  # fmt: skip
            assert checked(cfg)["prefill"]["gamma"] == 1.2e-3


def test_the_layer_of_other_inputs_is_not_overwritten(tmp_path, monkeypatch):
    table = tmp_path / "conf" / "tuned" / "pocket.yaml"
    monkeypatch.setattr(tuned_table, "tuned_dir", lambda: table.parent)
    monkeypatch.chdir(tmp_path)
    hydra = {"runtime": {"choices": {}}, "overrides": {"task": []}}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(hydra))
    chosen = {"hub": 9, "pad": 8}
    for resize, layer in chosen.items():
        written = (f"model.resize={resize}", f"output_root={tmp_path}", "write=true", "first=8")
        cfg = composed(*written, name="vtw_layer")
        vtw_layer.require_free(cfg)
        vtw_layer.write(cfg, [], layer + 1)
    assert len(yaml.safe_load(table.read_text())) == 2
    for resize, layer in chosen.items():
        cfg = composed("method=vtw", "prefill=vtw_kl", "budget=none", f"model.resize={resize}")
        assert checked(cfg)["prefill"]["layer"] == layer


def test_the_tables_calibrate_with_the_inputs_that_they_run_with():
    (line,) = calibration("llava15_7b", [("mustdrop", "t64", "gqa")])
    words = line.removeprefix("mustdrop calibrate -m ").split()
    made = inputs_of(composed(*words, name="calibrate").model)
    for table in {*layouts()} & {*preset_names("experiment")}:
        assert inputs_of(composed(f"experiment={table}", "model=llava15_7b").model) == made
