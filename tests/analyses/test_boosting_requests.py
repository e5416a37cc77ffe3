"""What `boosting` can be asked for, what it refuses in one line, and what it says beside the figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn, optim
from tscope_format.errors import AnalysisError, MissingDataError, TraceError, TscopeError, UsageError

import tscope
from tests.analyses.boosting_pairs import Pair, ensemble, make_pair, network, problem
from tests.optimizers.recorded import Recorder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"))


SETS = (
    "sets of 2 examples do not have every share: of them 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2 are irregular; take "
    "more test examples, a larger `--irregular`, or fewer `--shares`"
)


def compared(net: tscope.Trace, trees: tscope.Trace, **options):
    return tscope.analyze(net, "boosting", **{"save": False, "against": str(trees.path), **options})


def refused(net: tscope.Trace, trees: tscope.Trace, kind: type[TscopeError], **options) -> str:
    with pytest.raises(kind) as caught:
        compared(net, trees, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"irregularity": "age"}, "irregularity must be pca, mahalanobis or FILE.npz:NAME; got 'age'"),
        (
            {"irregular": 0.6},
            "irregular must be a share above 0, at most 0.5 (a set without irregular examples is as large); "
            "got 0.6",
        ),
        ({"shares": "0,1.5"}, "shares must be numbers from 0 to 1 separated by commas; got '1.5'"),
        ({"shares": "0,half"}, "shares must be numbers from 0 to 1 separated by commas; got 'half'"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"dtype": "float16"}, "unknown dtype 'float16'; there is float32, float64"),
        ({"max_memory_mb": 0}, "max_memory_mb must be positive, got 0"),
        ({"seed": -1}, "seed must lie between 0 and 2**63 - 1, got -1"),
        (
            {"against": None, "against_root": "model"},
            "against_root names an ensemble of the trace `--against`; give that trace too",
        ),
        ({"against_root": "other"}, "has no root other; it has model"),
        ({"train": 31}, "--train 31: there are 30 training examples"),
        ({"probe": "other"}, "no probe set other; the trace has held, and a file must be named *.npz"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(
    pair: Pair, options: dict[str, object], message: str
) -> None:
    found = refused(pair.net, pair.trees, UsageError, **options)
    assert message in found.replace("'other'", "other")


def test_what_is_no_ensemble_is_refused(pair: Pair, tmp_path: Path) -> None:
    assert refused(pair.net, pair.trees, MissingDataError, against=None) == (
        f"{pair.net.path} lacks what boosting needs: an ensemble of trees to compare with. Name its trace: "
        "`--against TREES.zarr`"
    )
    message = refused(pair.net, pair.net, MissingDataError)
    assert message == (
        f"--against: {pair.net.path} holds no ensemble of trees; record one with `tscope record -- python "
        "train_gbt.py`"
    )
    assert "--against: model holds no ensemble" in refused(
        pair.net, pair.net, MissingDataError, against_root="model"
    )
    refused(pair.net, pair.trees, TraceError, against=str(tmp_path))
    message = refused(pair.trees, pair.net, MissingDataError)
    assert "lacks what boosting needs: a network" in message


def test_an_ensemble_that_is_not_exact_is_refused(pair: Pair, tmp_path: Path) -> None:
    trees = ensemble(tmp_path / "t.zarr", pair.x, pair.y, None, shrinkage=0.2)
    message = refused(pair.net, trees, AnalysisError)
    assert "the smoother of model is not exact: max |Sy − prediction| is" in message


def test_probe_sets_must_be_the_same_examples(pair: Pair, tmp_path: Path) -> None:
    held, labels = pair.held, pair.held_y

    def message(name: str, inputs: np.ndarray, y: np.ndarray) -> str:
        trees = ensemble(tmp_path / f"{name}.zarr", pair.x, pair.y, (inputs, y))
        return refused(pair.net, trees, UsageError)

    both = "the probe sets differ: held of the network and held of the trees"
    also = "record both with the same `--probe FILE.npz`, or give it now: `--probe FILE.npz`"
    assert message("fewer", held[:9], labels[:9]) == f"{both} have 20 and 9 examples; {also}"
    turned = message("turned", held[::-1].copy(), labels[::-1].copy())
    assert turned == f"{both} hold the same examples in another order; {also}"
    moved = held.copy()
    moved[[4, 7], 1] = 0.25, 0.5
    assert message("moved", moved, labels) == (
        f"{both} differ in 2 of 20 examples; feature 1 of example 4 is {held[4, 1]:.6g} and 0.25 (were "
        f"inputs scaled for one of the two only?); {also}"
    )
    wrong = labels.copy()
    wrong[3] = 8
    assert message("wrong", held, wrong) == (
        f"{both} have other labels at 1 of 20 examples; that of example 3 is {np.float32(labels[3, 0]):.6g} "
        f"and 8; {also}"
    )
    two = message("two", held, np.zeros((20, 2)))
    assert two == f"{both} have 1 and 2 labels each; {also}"


def test_training_sets_must_overlap(pair: Pair, tmp_path: Path) -> None:
    scaled = ensemble(tmp_path / "scaled.zarr", pair.x * 2, pair.y, None)
    assert refused(pair.net, scaled, UsageError) == (
        "none of the network's 30 training examples is among the 30 of the trees: they were fitted on "
        "other data, or inputs were scaled for one of the two only"
    )
    part = ensemble(tmp_path / "part.zarr", pair.x[:20], pair.y[:20], None)
    assert (
        "of the network's 30 training examples the trees were fitted on 20" in compared(pair.net, part).notes
    )
    wide = np.concatenate([pair.x, pair.x[:, :1]], axis=1)
    other = ensemble(tmp_path / "wide.zarr", wide, pair.y, None)
    assert refused(pair.net, other, UsageError) == (
        "the network was trained on 3 features, the trees on 4; both must get the same"
    )


def test_labels_and_outputs_must_be_there_and_fit(tmp_path: Path) -> None:
    x, y, held, held_y = problem(2)
    net, _ = network(tmp_path / "net.zarr", x, y, {"held": (held, None)})
    trees = ensemble(tmp_path / "trees.zarr", x, y, (held, None))
    assert refused(net, trees, MissingDataError) == (
        "the examples of probe set held have no labels in either trace, so there are no errors to compare; "
        "give them with `--probe FILE.npz` (x, y)"
    )
    single = ensemble(tmp_path / "single.zarr", x, y[:, :1], None)
    np.savez(tmp_path / "one.npz", x=held, y=held_y[:, 0])
    probe = str(tmp_path / "one.npz")
    assert refused(net, single, UsageError, probe=probe) == (
        "the network has 2 outputs, the trees 1: they do not predict the same"
    )
    assert refused(net, trees, UsageError, probe=probe) == (
        "the labels of probe set one have 1 values each, the trees 2 outputs: errors are squared differences "
        "of the two"
    )
    assert compared(net, ensemble(tmp_path / "labelled.zarr", x, y, (held, held_y)), draws=2).scalars[
        "probe"
    ] == ("held")
    bare, _ = network(tmp_path / "bare.zarr", x, y, {})
    assert "holds no held-out examples to compare on" in refused(bare, trees, MissingDataError)


def test_no_example_must_be_more_irregular_than_another(pair: Pair, tmp_path: Path) -> None:
    assert refused(pair.net, pair.trees, AnalysisError, irregular=0.02) == (
        "the 2% most irregular of 20 test examples are none; give more test examples, or a larger share "
        "(`--irregular SHARE`)"
    )
    files = {"flat": np.ones(20), "short": np.ones(3), "gaps": np.r_[np.nan, np.ones(19)]}
    np.savez(tmp_path / "s.npz", **files)
    place = tmp_path / "s.npz"

    def of(name: str, kind: type[TscopeError]) -> str:
        return refused(pair.net, pair.trees, kind, irregularity=f"{place}{name}")

    assert of(":flat", AnalysisError) == "all 20 test examples are equally irregular (1)"
    assert of(":short", UsageError) == (
        f"irregularity {place}:short must be one number for each of the 20 test examples; it is float64 of "
        "shape (3,)"
    )
    assert of(":gaps", UsageError) == f"irregularity {place}:gaps is nan at example 0; numbers are needed"
    assert of(":old", UsageError) == (
        f"irregularity file {place} has no array 'old'; it holds flat, gaps, short"
    )
    assert of("", UsageError) == (
        f"irregularity file {place} holds several arrays: name one, `FILE.npz:NAME`; it holds flat, "
        "gaps, short"
    )
    message = refused(pair.net, pair.trees, UsageError, irregularity="nowhere.npz:a")
    assert message == (
        "irregularity file nowhere.npz does not exist; give an .npz with a number for each test example"
    )


def test_a_row_that_does_not_fit_is_refused_before_it_is_computed(pair: Pair) -> None:
    message = refused(pair.net, pair.trees, AnalysisError, max_memory_mb=0.001)
    assert message.startswith("a row of the kernel over 30 training examples with 1 outputs needs 0.00072 MB")
    assert message.endswith("take fewer: `--train N`")


def test_a_run_that_diverged_has_nothing_to_compare(pair: Pair, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 1).double()
    x, y = torch.from_numpy(pair.x), torch.from_numpy(pair.y)
    recorder = Recorder(tmp_path / "net.zarr", module, optim.SGD(module.parameters(), lr=1e200), x)
    for _ in range(4):
        module.zero_grad()
        loss = nn.functional.mse_loss(recorder.forward(x), y)
        loss.backward()
        recorder.step(loss.item())
    recorder.root.add_probe("held", inputs=[pair.held], target=pair.held_y, attributes={})
    message = refused(recorder.close(), pair.trees, AnalysisError)
    assert "not finite" in message


def test_provenance_names_the_trees(pair: Pair) -> None:
    result = compared(pair.net, pair.trees, draws=3, irregularity="mahalanobis")
    assert result.notes == (SETS,)
    assert result.provenance["against"] == {
        "trace": pair.trees.fingerprint,
        "path": "trees.zarr",
        "root": "model",
        "class": "Stumps",
        "rule_of_trees": "boosting",
    }
    assert result.provenance["options"]["against"] == str(pair.trees.path)


def test_a_trace_of_several_models_is_said_to_be_one(pair: Pair, tmp_path: Path) -> None:
    trees = ensemble(tmp_path / "two.zarr", pair.x, pair.y, None, also=("second", "third"))
    result = compared(pair.net, trees, against_root="second", irregularity="mahalanobis", draws=2)
    assert result.notes == (
        "the trees are second; their trace also holds model, third (`--against-root`)",
        SETS,
    )


def test_a_forest_is_said_to_be_one(pair: Pair, tmp_path: Path) -> None:
    trees = ensemble(tmp_path / "forest.zarr", pair.x, pair.y, (pair.held, pair.held_y), "forest")
    result = compared(pair.net, trees, draws=3, irregularity="mahalanobis")
    assert result.notes == (
        "the trees are a forest: k_t is tree t's own weights, not those of a step",
        SETS,
    )
    counts = [np.bincount(leaf)[leaf] for leaf in trees.reader.read("trees/leaf", 1)]
    expected = np.mean([1 / np.sqrt(count) for count in counts], axis=0)
    np.testing.assert_allclose(result.arrays["weight_norm_train_trees"].data, expected, rtol=1e-13)
