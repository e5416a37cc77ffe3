"""Which runs training steps by replay refuse, and what they say."""

from __future__ import annotations

import pytest
import torch
from recorded import Recorder, data, mlp
from torch import nn, optim
from tscope_format import Micro
from walks import mse, one_step, refusal, simple, started, walk

import tscope


def test_more_changes_than_are_recorded_are_refused_from_there_on(tmp_path):
    recorder = started(tmp_path, lambda p: optim.SGD(p, lr=0.1, momentum=0.9))
    for number in range(6):
        recorder.optimizer.param_groups[0]["momentum"] = 0.1 * number
        one_step(recorder)
    recorder.root.attributes["optimizer_changes_dropped"] = 2
    recorder.changes, kept = recorder.changes[:3], recorder.changes
    assert len(kept) == 6
    trace = recorder.close()
    message = refusal(trace, tscope.MissingDataError)
    assert "the hyper-parameters changed more often than is recorded (3 changes)" in message
    assert len(list(walk(trace, stop_row=3))) == 2


def test_an_optimizer_without_an_adapter_is_refused_by_name(tmp_path):
    message = refusal(simple(tmp_path, 1, optim.Adadelta))
    assert "the run was trained with Adadelta" in message
    assert "SGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adagrad of torch.optim" in message


@pytest.mark.parametrize(
    ("optimizers", "what"),
    [
        ([], "no optimizer that was seen to step"),
        ([{"class": "SGD"}, {"class": "Adam"}], r"2 optimizers \(SGD, Adam\)"),
    ],
)
def test_a_model_of_no_or_several_optimizers_is_refused(tmp_path, optimizers, what):
    trace = simple(tmp_path, 1, attributes={"optimizers": optimizers})
    with pytest.raises(tscope.AnalysisError, match=f"model was trained by {what}"):
        walk(trace)


def test_hyper_parameters_that_are_no_numbers_are_refused(tmp_path):
    hyper = {"momentum": "a schedule", "lr": 0.1}
    optimizers = [{"class": "SGD", "columns": [0], "groups": [{"tensors": [0, 1, 2, 3], "hyper": hyper}]}]
    trace = simple(tmp_path, 1, attributes={"optimizers": optimizers})
    assert "the hyper-parameter 'momentum' of SGD was recorded as a schedule" in refusal(trace)


def test_changes_by_anything_else_are_refused_with_the_step(tmp_path):
    recorder = started(tmp_path)
    for number in range(9):
        one_step(recorder, foreign=number in (2, 3, 6))
    trace = recorder.close()
    # However short the walk is, as the one that looks at the first steps, the count is of the whole run.
    for stop in (None, 4, 5):
        with pytest.raises(tscope.AnalysisError) as caught:
            list(walk(trace, stop_row=stop))
        assert str(caught.value).startswith(
            "step 3: something else than the optimizer changed the parameters before it "
            "(and before 3 of the 9 recorded steps in all), so"
        )
    assert len(list(walk(trace, stop_row=3))) == 2


def test_traces_that_lack_steps_are_refused(tmp_path):
    recorder = started(tmp_path, facts={"options": {"every": 5}})
    one_step(recorder, step=5)
    one_step(recorder, step=10)
    message = refusal(recorder.close(), tscope.MissingDataError)
    assert "no row between the steps 0 and 5 (it was recorded with --every 5)" in message
    assert tscope.MissingDataError.exit_code == 4


def test_batches_without_gradients_or_identity_are_refused(tmp_path):
    x, y = data(1)
    recorder = started(tmp_path)
    for number in range(3):
        recorder.module.zero_grad()
        mse(recorder.forward(x, identified=number != 1), y).backward()
        recorder.step()
    message = refusal(recorder.close(), tscope.MissingDataError)
    assert message.startswith("step 2: not all examples of the batch were identified")


def test_a_trace_without_outputs_is_refused_with_the_option(tmp_path):
    recorder = started(tmp_path)
    x, y = data(1)
    recorder.forward(x)
    mse(recorder.module(x), y).backward()
    part = torch.zeros(10, dtype=torch.int64).numpy()
    recorder.micro = [Micro(10, 1.0, part, None, None)]
    recorder.step()
    assert "`tscope record --outputs all`" in refusal(recorder.close(), tscope.MissingDataError)


def test_a_step_without_a_batch_is_refused(tmp_path):
    recorder = started(tmp_path)
    one_step(recorder)
    mse(recorder.module(data(1)[0]), data(1)[1]).backward()
    recorder.step()
    assert refusal(recorder.close(), tscope.MissingDataError).startswith("step 2: no batch was recorded")


class Noisy(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), layer, nn.Tanh(), nn.Linear(6, 1)).double()

    def forward(self, x):
        return self.body(x)


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp(1)

    def forward(self, x):
        return self.body(x + 0.1 if self.training else x)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (lambda: Noisy(nn.Dropout(0.2)), "the model has dropout: train with it in evaluation mode"),
        (lambda: Noisy(nn.BatchNorm1d(6)), "the model has batch normalisation: train with it"),
        (Shifted, "train without randomness or state in the forward pass"),
    ],
)
def test_a_training_forward_that_is_no_function_is_refused_with_the_reason(tmp_path, module, reason):
    torch.manual_seed(0)
    recorder = started(tmp_path, module=module())
    for _ in range(3):
        one_step(recorder)
    message = refusal(recorder.close())
    assert "the training outputs are not a fixed function of the parameters" in message
    assert reason in message


def test_passes_at_two_states_of_the_parameters_are_refused_and_sam_is_named(tmp_path):
    recorder = started(tmp_path)
    x, y = data(1)
    weight = recorder.module[0].weight
    mse(recorder.forward(x), y).backward()
    with torch.no_grad():
        climb = 0.05 * weight.grad / weight.grad.norm()
        weight += climb
    mse(recorder.forward(x), y).backward()
    with torch.no_grad():
        weight -= climb
    recorder.step()
    assert "all passes of a step at the same parameters (those of SAM, for one, are not)" in refusal(
        recorder.close()
    )


def test_batch_normalisation_with_fixed_statistics_is_followed(tmp_path):
    recorder = started(tmp_path, module=Noisy(nn.BatchNorm1d(6)))
    recorder.module.eval()
    for _ in range(3):
        one_step(recorder)
    assert all(step.residual.relative < 1e-12 for step in walk(recorder.close()))


def test_gradients_that_are_not_those_of_the_outputs_are_refused_with_the_step(tmp_path):
    x, y = data(1)
    for case in ("by value", "penalty"):
        recorder = started(tmp_path / case)
        for number in range(3):
            recorder.module.zero_grad()
            loss = mse(recorder.forward(x), y)
            if case == "penalty" and number == 1:
                loss = loss + 0.1 * recorder.module[0].weight.square().sum()
            loss.backward()
            if case == "by value" and number == 1:
                nn.utils.clip_grad_value_(recorder.module.parameters(), 0.05)
            recorder.step()
        message = refusal(recorder.close())
        assert message.startswith("step 2: the gradient that the optimizer used for")
        assert "use clip_grad_norm_ and the optimizer's weight_decay" in message


def test_a_gradient_that_does_not_come_from_the_outputs_at_all_is_refused(tmp_path):
    recorder = started(tmp_path)
    (0.0 * recorder.forward(data(1)[0]).sum() + recorder.module[0].weight.sum()).backward()
    recorder.step()
    assert refusal(recorder.close()).startswith("step 1: the gradient that the optimizer used for 0.weight")


def test_parameters_that_move_without_the_optimizer_are_refused(tmp_path):
    x, y = data(1)
    module = mlp(1)
    recorder = Recorder(tmp_path / "run.zarr", module, optim.SGD(module[0].parameters(), lr=0.1), x)
    mse(recorder.forward(x), y).backward()
    with torch.no_grad():
        module[2].bias += 1
    recorder.step()
    assert "step 1: 2.bias changed although the step has no gradient or learning rate" in refusal(
        recorder.close()
    )


def test_an_optimizer_that_goes_on_from_a_checkpoint_is_refused_at_the_first_anchor(tmp_path):
    recorder = started(tmp_path, lambda p: optim.AdamW(p, lr=0.01))
    module = recorder.module
    mse(module(data(1)[0]), data(1)[1]).backward()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    recorder.optimizer.step()
    module.load_state_dict(state)
    for _ in range(9):
        one_step(recorder)
    trace = recorder.close()
    assert next(iter(walk(trace))).residual.relative > 0.01
    message = refusal(trace)
    assert message.startswith("step 8: the optimizer counts 9 steps of 0.weight, and 8 were recorded")


def test_rows_that_do_not_exist_are_refused(tmp_path):
    trace = simple(tmp_path, 2)
    for rows in ({"start_row": 0}, {"stop_row": 4}, {"start_row": 3, "stop_row": 2}):
        with pytest.raises(tscope.UsageError, match=r"the trace holds rows 1 to 2"):
            walk(trace, **rows)


def test_another_output_than_the_recorded_one_is_refused(tmp_path):
    trace = simple(tmp_path, 1, attributes={"output_path": "logits"})
    with pytest.raises(tscope.AnalysisError, match="the loss is of the model's output 'logits'"):
        walk(trace)
