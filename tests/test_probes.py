import numpy as np
import pytest
from tscope_format import UsageError

from tscope.probes import InputSpec, read_probe_file

IMAGES = [InputSpec((2, 2), "float32")]


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        path = tmp_path / "probe.npz"
        np.savez(path, **arrays)
        return path

    return write


def good(count=3):
    return np.zeros((count, 2, 2), np.float32)


def test_one_input_with_labels(save):
    probe = read_probe_file(save(x=good(), y=np.arange(3)), IMAGES)
    assert probe.name == "probe"
    assert probe.examples == 3
    assert [array.shape for array in probe.inputs] == [(3, 2, 2)]
    assert probe.target is not None
    assert probe.target.tolist() == [0, 1, 2]
    assert not probe.in_sample


def test_several_inputs_keep_their_numbers_order(save):
    arrays = {f"x{k}": np.full((1, 1), k) for k in range(11)}
    probe = read_probe_file(save(**arrays))
    assert [int(array[0, 0]) for array in probe.inputs] == list(range(11))


def test_missing_file_names_the_expected_keys(tmp_path):
    with pytest.raises(UsageError, match=r"none\.npz does not exist; give an \.npz with arrays `x`"):
        read_probe_file(tmp_path / "none.npz")


def test_a_file_that_is_no_archive(tmp_path):
    path = tmp_path / "probe.npz"
    path.write_bytes(b"not a zip")
    with pytest.raises(UsageError, match=r"cannot be read as \.npz"):
        read_probe_file(path)


def test_a_truncated_archive(save):
    path = save(x=good())
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UsageError, match=r"cannot be read as \.npz"):
        read_probe_file(path)


def test_pickled_objects_are_refused(save):
    with pytest.raises(UsageError, match="without pickled objects"):
        read_probe_file(save(x=np.array([{}, {}], dtype=object)))


def test_a_bare_array(tmp_path):
    path = tmp_path / "probe.npz"
    with path.open("wb") as file:
        np.save(file, good())
    with pytest.raises(UsageError, match="is one bare array"):
        read_probe_file(path)


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"inputs": good()}, "it holds inputs"),
        ({"x": good(), "labels": np.zeros(3)}, "it holds labels, x"),
        ({"x0": good(), "x2": good()}, "it holds x0, x2"),
        ({"x": good(), "x1": good()}, "it holds x, x1"),
        ({"y": np.zeros(3)}, "it holds y"),
    ],
)
def test_wrong_keys_are_listed(save, arrays, found):
    with pytest.raises(UsageError, match=found):
        read_probe_file(save(**arrays))


@pytest.mark.parametrize(
    "arrays",
    [{"x": good(3), "y": np.zeros(2)}, {"x": good(0)}, {"x": np.float32(1)}, {"x0": good(3), "x1": good(2)}],
)
def test_examples_must_agree(save, arrays):
    with pytest.raises(UsageError, match="same number of them, at least one; got shapes"):
        read_probe_file(save(**arrays))


def test_wrong_shape_says_both(save):
    with pytest.raises(UsageError, match=r"`x` has shape \(3,\), but the model was trained on \(2, 2\)"):
        read_probe_file(save(x=np.zeros((2, 3), np.float32)), IMAGES)


def test_wrong_dtype_says_how_to_convert(save):
    with pytest.raises(
        UsageError, match=r"dtype float64, but .* float32; convert it with \.astype\('float32'\)"
    ):
        read_probe_file(save(x=good().astype(np.float64)), IMAGES)


def test_wrong_number_of_inputs(save):
    with pytest.raises(UsageError, match=r"holds 1 input\(s\) \(x\), but the model takes 2"):
        read_probe_file(save(x=good()), IMAGES * 2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["x", "y"])
def test_values_that_are_not_finite_are_located(save, name, value):
    arrays = {"x": good(), "y": np.zeros(3)}
    arrays[name][1] = value
    with pytest.raises(
        UsageError, match=rf"`{name}` holds \d NaN or infinite value\(s\), the first in example 1"
    ):
        read_probe_file(save(**arrays))


def test_text_is_no_input(save):
    with pytest.raises(UsageError, match="`x` has dtype <U1; numbers are needed"):
        read_probe_file(save(x=np.array(["a", "b"])))


def test_terminal_escapes_in_names_are_removed(save):
    with pytest.raises(UsageError) as error:
        read_probe_file(save(**{"\x1b[31mred": good()}))
    assert "\x1b" not in str(error.value)
