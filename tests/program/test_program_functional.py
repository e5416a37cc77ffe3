from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from tscope_format import UsageError

from tscope.program import OutputFunctional

LABELS = torch.tensor([0, 2, 1])


def choose(spec, shape, inputs=(), target=None):
    return OutputFunctional.choose(spec, shape, inputs, target)


def test_a_small_output_is_followed_in_full():
    chosen, note = choose("auto", (3, 4, 16), target=LABELS)
    assert (chosen.kind, note) == ("full", "")
    assert chosen(torch.randn(3, 4, 16)).shape == (3, 64)
    assert choose("full", (3, 1000))[0].kind == "full"


def test_a_large_output_with_labels_is_followed_at_the_label():
    output = torch.randn(3, 100)
    chosen, note = choose("auto", output.shape, target=LABELS)
    assert "log-probability of the label" in note
    torch.testing.assert_close(
        chosen(output)[:, 0], -functional.cross_entropy(output, LABELS, reduction="none")
    )
    column, _ = choose("auto", output.shape, target=LABELS[:, None])
    assert torch.equal(column(output), chosen(output))


def test_a_language_model_takes_its_second_input_or_the_next_token():
    x = torch.randint(0, 50, (3, 7))
    y = torch.randint(0, 50, (3, 7))
    output = torch.randn(3, 7, 50)
    logp = output.log_softmax(-1)
    given, note = choose("auto", output.shape, (x, y))
    assert "second input" in note
    torch.testing.assert_close(given(output), logp.gather(2, y[..., None])[..., 0])
    following, note = choose("auto", output.shape, (x,))
    assert "next token" in note
    torch.testing.assert_close(following(output)[:, :-1], logp[:, :-1].gather(2, x[:, 1:, None])[..., 0])
    assert not following(output)[:, -1].any()


def test_many_positions_are_averaged_over_the_known_ones():
    x = torch.randint(0, 50, (3, 80))
    output = torch.randn(3, 80, 50)
    chosen, _ = choose("auto", output.shape, (x,))
    logp = output[:, :-1].log_softmax(-1).gather(2, x[:, 1:, None])[..., 0]
    torch.testing.assert_close(chosen(output), logp.mean(1, keepdim=True))


def test_images_have_their_classes_second():
    output = torch.randn(2, 70, 4, 5)
    target = torch.randint(0, 70, (2, 4, 5))
    target[0, 0, 0] = -100
    chosen, _ = choose("logprob", output.shape, target=target)
    expected = -functional.cross_entropy(output, target, reduction="none").flatten(1)
    torch.testing.assert_close(chosen(output), expected)
    loss, _ = choose("loss", output.shape, target=target)
    torch.testing.assert_close(loss(output)[0, 0], functional.cross_entropy(output[:1], target[:1]))


def test_a_large_output_without_labels_is_cut_and_said():
    chosen, note = choose("auto", (3, 100))
    output = torch.randn(3, 100)
    assert torch.equal(chosen(output), output[:, :64])
    assert "100 values" in note
    assert "first 64" in note


def test_positions():
    output = torch.randn(3, 2, 5)
    flat = output.flatten(1)
    assert torch.equal(choose("7", output.shape)[0](output), flat[:, [7]])
    assert torch.equal(choose("0,9", output.shape)[0](output), flat[:, [0, 9]])
    assert torch.equal(choose("2:5", output.shape)[0](output), flat[:, 2:5])
    for spec in ("10", "0,10", "-1", "5:2"):
        with pytest.raises(UsageError, match="the model has the outputs 0 to 9"):
            choose(spec, output.shape)
    for spec in ("first", "1;2", "a:b", ""):
        with pytest.raises(UsageError, match="is none of full, logprob, loss"):
            choose(spec, output.shape)


def test_losses_of_labels_and_of_values():
    output = torch.randn(3, 4)
    loss, _ = choose("loss", output.shape, target=LABELS)
    torch.testing.assert_close(loss(output)[:, 0], functional.cross_entropy(output, LABELS, reduction="none"))
    values = torch.randn(3, 4)
    squared, _ = choose("loss", output.shape, target=values)
    torch.testing.assert_close(squared(output)[:, 0], ((output - values) ** 2).mean(1))
    signs, _ = choose("loss", (3, 1), target=torch.tensor([1, -1, 1]))
    assert signs(torch.ones(3, 1)).flatten().tolist() == [0, 4, 0]


def test_targets_that_do_not_fit_are_refused():
    for spec in ("logprob", "loss"):
        with pytest.raises(UsageError, match=f"--probe-output {spec} needs targets"):
            choose(spec, (3, 4))
        with pytest.raises(UsageError, match=r"cannot use targets of shape \(5,\)"):
            choose(spec, (3, 4), target=torch.zeros(5, dtype=torch.long))
        with pytest.raises(UsageError, match="targets go up to 9, but the model has 4 outputs"):
            choose(spec, (3, 4), target=torch.tensor([0, 9, 1]))
    with pytest.raises(UsageError, match="float32 with outputs"):
        choose("logprob", (3, 4), target=torch.zeros(3))


def test_rows_of_a_functional_follow_its_target():
    chosen, _ = choose("logprob", (3, 4), target=LABELS)
    output = torch.randn(3, 4)
    assert torch.equal(chosen.rows(1, 3)(output[1:3]), chosen(output)[1:3])
