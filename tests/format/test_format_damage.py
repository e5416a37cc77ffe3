"""A damaged trace says so: what is missing, cut, flipped or foreign is named, and never read as numbers."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from format_run import Run, small_chunks
from tscope_format import TraceError, UsageError, open_trace, verify


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        small_chunks(patch)
        run = Run(tmp_path_factory.mktemp("original") / "t.zarr")
        for step in range(1, 20):
            run.append(slots=2 + step // 6, buffer=step > 9)
            run.add_state()
            if step % 4 == 0:
                run.add_examples()
                run.project()
        run.root.set_program(b'{"nodes":[]}', {"scale": np.array(2.5), "mask": np.ones((2, 2), np.float32)})
        run.writer.close("complete")
    return run.path


@pytest.fixture
def trace(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "t.zarr"))


def chunks(path: Path) -> list[Path]:
    return sorted(
        file for file in path.rglob("*") if file.is_file() and "/c/" in f"{file}/".replace("\\", "/")
    )


def array_of(path: Path, chunk: Path) -> str:
    return re.sub(r"/c[\d/]*$", "", chunk.relative_to(path / "model").as_posix())


def flip(chunk: Path, bit: int) -> None:
    data = bytearray(chunk.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    chunk.write_bytes(data)


def test_an_intact_trace_verifies(original: Path) -> None:
    report = verify(original)
    assert report.ok
    assert report.status == "complete"
    assert report.checked["chunks"] == len(chunks(original))
    assert report.checked["examples"] == 8
    assert report.checked["anchors"] > 4


def test_verify_tells_its_progress(original: Path) -> None:
    seen: list[tuple[float, float]] = []
    verify(original, lambda done, total, what: seen.append((done, total)))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_flipped_bit_in_any_chunk_is_found_by_reading_and_by_verify(original: Path) -> None:
    random = np.random.default_rng(0)
    root = open_trace(original).root()
    for chunk in chunks(original):
        whole = chunk.read_bytes()
        bits = 8 * len(whole)
        for bit in {0, bits - 1, *random.integers(0, bits, 3).tolist()}:
            flip(chunk, bit)
            with pytest.raises(TraceError, match="the chunk of model/"):
                root.read(array_of(original, chunk))
            chunk.write_bytes(whole)
    assert verify(original).ok


def test_verify_finds_flipped_bits_everywhere_at_once(trace: Path) -> None:
    broken = chunks(trace)[::3]
    for chunk in broken:
        flip(chunk, 77)
    report = verify(trace)
    assert not report.ok
    assert {problem.where.removeprefix("model/") for problem in report.problems} == {
        array_of(trace, chunk) for chunk in broken
    }
    assert sum(problem.what.startswith("chunk has a wrong checksum") for problem in report.problems) == len(
        broken
    )


@pytest.mark.parametrize("length", [0, 3, 4, 5, 30])
def test_a_truncated_chunk_is_refused(trace: Path, length: int) -> None:
    chunk = trace / "model/theta/update/c/1/0"
    chunk.write_bytes(chunk.read_bytes()[:length])
    message = r"t\.zarr: the chunk of model/theta/update with rows 5 to 9 (is cut short|has a wrong checksum)"
    with pytest.raises(TraceError, match=message):
        open_trace(trace).root().theta(7)
    assert [(problem.where, problem.rows) for problem in verify(trace).problems] == [
        ("model/theta/update", (5, 10))
    ]


def test_a_missing_chunk_is_refused_and_not_read_as_fill(trace: Path) -> None:
    (trace / "model/loss/c/1").unlink()
    root = open_trace(trace).root()
    message = "the chunk of model/loss with rows 3 to 5 is missing; `tscope verify` lists all damage"
    with pytest.raises(TraceError, match=re.escape(message)):
        root.read("loss")
    assert len(root.read("loss", 6)) == 14
    assert [(problem.where, problem.what) for problem in verify(trace).problems] == [
        ("model/loss", "chunk is missing")
    ]


def test_damage_before_an_anchor_does_not_reach_beyond_it(trace: Path) -> None:
    (trace / "model/theta/update/c/0/0").unlink()
    root = open_trace(trace).root()
    with pytest.raises(TraceError, match="rows 0 to 4 is missing"):
        root.theta(3)
    assert set(root.theta(9)) == {"float32", "bfloat16", "float64"}


def test_updates_that_do_not_lead_to_the_next_anchor_are_found(trace: Path) -> None:
    # The chunks are intact, but a later one stands where an earlier one belongs.
    folder = trace / "model/theta/update/c"
    shutil.copy(folder / "2/0", folder / "1/0")
    problems = verify(trace).problems
    assert problems[0].where == "model/theta"
    assert problems[0].rows == (1, 9)
    assert re.fullmatch(r"the updates do not lead to anchor 1: \d+ of 41 values differ", problems[0].what)


def test_inputs_that_do_not_have_their_hash_are_found(trace: Path) -> None:
    folder = trace / "model/examples/input/0/c"
    shutil.copy(folder / "1/0", folder / "0/0")
    problems = verify(trace).problems
    assert {problem.what for problem in problems} == {"the inputs do not have the recorded hash"}
    assert problems[0].rows == (0, 1)


def test_an_array_document_that_contradicts_the_record_is_found(trace: Path) -> None:
    document = trace / "model/loss/zarr.json"
    document.write_text(document.read_text().replace("[20]", "[7]"))
    (trace / "model/lr/zarr.json").unlink()
    problems = {problem.where: problem.what for problem in verify(trace).problems}
    assert problems["model/loss/zarr.json"] == (
        "does not match the commit record (shape (7,), committed (20,))"
    )
    assert problems["model/lr/zarr.json"].startswith("cannot be read")


def rewrite(trace: Path, change: str, value: object) -> None:
    record = json.loads((trace / "zarr.json").read_text())
    target = record
    *parents, last = change.split("|")
    for key in parents:
        target = target[key]
    target[last] = value
    (trace / "zarr.json").write_text(json.dumps(record))


def test_a_newer_format_is_refused_by_name(trace: Path) -> None:
    rewrite(trace, "attributes|tscope|format", 2)
    message = "is in trace format 2, and this tscope reads up to format 1: upgrade tscope"
    with pytest.raises(TraceError, match=message) as caught:
        open_trace(trace)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a trace: it has no zarr.json"),
        ("{", "the commit record zarr.json is not JSON"),
        ("[]", "is not a trace: its zarr.json was not written by tscope"),
        ('{"attributes": {}}', "is not a trace: its zarr.json was not written by tscope"),
        ('{"attributes": {"tscope": {"format": 1}}}', "the commit record zarr.json lacks"),
    ],
)
def test_something_else_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "zarr.json").write_text(content)
    with pytest.raises(TraceError, match=message):
        open_trace(tmp_path)


def test_a_path_that_is_a_file_or_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TraceError, match="is a file, and a trace is a folder"):
        open_trace(tmp_path / "file")
    with pytest.raises(TraceError, match="does not exist"):
        open_trace(tmp_path / "nothing")


@pytest.mark.parametrize("key", ["../outside", "model/../../x", "/etc", "model//x"])
def test_a_record_that_leads_out_of_the_folder_is_refused(trace: Path, key: str) -> None:
    record = json.loads((trace / "zarr.json").read_text())
    members = record["consolidated_metadata"]["metadata"]
    members[key] = members["model/loss"]
    (trace / "zarr.json").write_text(json.dumps(record))
    with pytest.raises(TraceError, match="is invalid \\(not a path within the trace\\)"):
        open_trace(trace)


@pytest.mark.parametrize(
    ("change", "value", "message"),
    [
        ("shape", [-1], "shape"),
        ("shape", [20, 2], "shape"),
        ("codecs", [{"name": "bytes"}, {"name": "gzip"}], "codecs bytes → gzip, expected"),
        ("data_type", "object", "data type object"),
        ("chunk_key_encoding", {"name": "v2"}, "an unknown chunk key encoding"),
    ],
)
def test_an_entry_that_is_not_of_format_1_is_refused(
    trace: Path, change: str, value: object, message: str
) -> None:
    rewrite(trace, f"consolidated_metadata|metadata|model/loss|{change}", value)
    with pytest.raises(TraceError, match=f"entry for 'model/loss' is invalid .*{message}"):
        open_trace(trace)


def test_a_record_that_contradicts_itself_is_refused(trace: Path) -> None:
    rewrite(trace, "attributes|tscope|rows|model", 21)
    with pytest.raises(TraceError, match="the commit record says 21 rows of model, but 20 of"):
        open_trace(trace).root()


def test_a_root_without_its_table_is_refused(trace: Path) -> None:
    rewrite(trace, "consolidated_metadata|metadata|model|attributes|parameters", [{"name": 1}])
    with pytest.raises(TraceError, match="root 'model' has no valid parameter table"):
        open_trace(trace).root()


def test_an_enormous_shape_is_refused_before_memory_is_reserved(trace: Path) -> None:
    for name in ("step", "loss"):
        rewrite(trace, f"consolidated_metadata|metadata|model/{name}|shape", [10**15])
    rewrite(trace, "attributes|tscope|rows|model", 10**15)
    members = json.loads((trace / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    for key, member in members.items():
        if member.get("dimension_names", [""])[:1] == ["step"]:
            rewrite(trace, f"consolidated_metadata|metadata|{key}|shape", [10**15, *member["shape"][1:]])
    with pytest.raises(TraceError, match="is missing"):
        open_trace(trace).root().read("loss")


def test_what_is_not_there_is_named(trace: Path) -> None:
    reader = open_trace(trace)
    with pytest.raises(UsageError, match="has no root 'other'; it has model"):
        reader.root("other")
    root = reader.root()
    with pytest.raises(TraceError, match="model has no array 'nothing'; it has batch/example, "):
        root.read("nothing")
    with pytest.raises(TraceError, match="model has rows 0 to 19, not 20"):
        root.theta(20)
    with pytest.raises(TraceError, match="model/loss has 20 rows; asked for 3 to 20"):
        root.take("loss", [3, 20])


def test_a_program_that_is_not_json_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    run.root.set_program(b"not json", {})
    run.writer.close("complete")
    with pytest.raises(TraceError, match="model/program/graph is not JSON"):
        open_trace(run.path).root().program()
