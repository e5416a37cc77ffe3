import numpy as np
import pytest

from tscope.analyses.decision import decision


def test_signed_labels_are_told_by_the_sign():
    rule = decision(np.array([[-1.0], [1.0]]), 1)
    assert rule.classes(np.array([[-0.2], [0.3]])).tolist() == [0, 1]
    assert rule.labels.tolist() == [0, 1]


def test_zero_one_labels_are_divided_in_the_middle():
    rule = decision(np.array([0, 1]), 1)
    assert rule.threshold == 0.5
    assert rule.classes(np.array([[0.4], [0.6]])).tolist() == rule.labels.tolist()


def test_the_threshold_can_be_chosen_for_logits():
    assert decision(np.array([0, 1]), 1, threshold=0.0).threshold == 0.0


@pytest.mark.parametrize("labels", [np.array([2, 0]), np.array([2.0, 0.0]), np.array([[0, 0, 1], [1, 0, 0]])])
def test_class_numbers_and_one_hot_rows_are_told_by_the_largest_output(labels):
    rule = decision(labels, 3)
    assert rule.labels.tolist() == [2, 0]
    assert rule.classes(np.array([[0.0, 0.1, 0.2], [1.0, 0.1, 0.2]])).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("labels", "outputs"),
    [
        (np.array([0.3, 2.0]), 1),
        (np.array([[0.1, 0.9]]), 2),
        (np.array([0, 5]), 3),
        (np.array([0.5, 1.0]), 3),
    ],
)
def test_regression_has_no_classes(labels, outputs):
    assert decision(labels, outputs) is None


def test_without_labels_outputs_are_still_compared():
    assert decision(None, 3).labels is None
    assert decision(None, 1).threshold == 0.0


def test_classes_keep_leading_dimensions():
    assert decision(None, 3).classes(np.zeros((5, 2, 3))).shape == (5, 2)
