from __future__ import annotations

import importlib.resources
from pathlib import Path

import numpy as np
import pytest

from hecompile.errors import InputError
from hecompile.models.data import Dataset, load_csv, load_ecg5000, load_npz, validation_rows
from hecompile.models.make_ecg5000 import choose_rows


@pytest.fixture(scope="module")
def ecg() -> Dataset:
    return load_ecg5000()


def test_built_in_data_have_the_documented_shapes_and_counts(ecg: Dataset) -> None:
    assert ecg.x_train.shape == (500, 1, 140)
    assert ecg.x_test.shape == (1000, 1, 140)
    assert ecg.classes == ("normal", "abnormal")
    assert np.bincount(ecg.y_train).tolist() == [292, 208]
    assert np.bincount(ecg.y_test).tolist() == [584, 416]
    assert np.allclose(ecg.x_test.std(axis=2), 1, atol=0.01)


def test_built_in_file_is_below_one_megabyte_and_documented() -> None:
    folder = importlib.resources.files("hecompile.models") / "data"
    with importlib.resources.as_file(folder / "ecg5000.npz") as file:
        assert file.stat().st_size < 1_000_000
    text = (folder / "README.md").read_text(encoding="utf-8")
    for word in ("Dau", "Goldberger", "Baim", "chf07", "ODC-By", "58.4 %", "one patient"):
        assert word in text


def test_no_test_beat_is_a_training_beat(ecg: Dataset) -> None:
    beats = np.concatenate([ecg.x_train, ecg.x_test])
    assert len(np.unique(beats, axis=0)) == 1500


def test_built_in_beats_are_those_of_the_archive(ecg: Dataset, shared_dir: Path) -> None:
    archive = np.load(shared_dir / "data" / "ucr_ECG5000.npz")
    rows = choose_rows(archive["y_test"].astype(np.int64), 1000)
    assert np.abs(ecg.x_train[:, 0] - archive["X_train"]).max() <= 1 / 8192 + 1e-6
    assert np.abs(ecg.x_test[:, 0] - archive["X_test"][rows]).max() <= 1 / 8192 + 1e-6
    assert np.array_equal(ecg.y_test, archive["y_test"][rows] != 1)


def test_choose_rows_keeps_proportions() -> None:
    labels = np.array([1] * 50 + [2] * 30 + [3] * 20)
    assert np.bincount(labels[choose_rows(labels, 10)]).tolist() == [0, 5, 3, 2]


def test_validation_is_the_tail_of_each_class_where_rows_are_sorted_by_class(ecg: Dataset) -> None:
    fit, held = validation_rows(ecg, 0.2)
    assert sorted([*fit, *held]) == list(range(500))
    assert np.bincount(ecg.y_train[held]).tolist() == [58, 42]
    for label in (0, 1):
        assert fit[ecg.y_train[fit] == label].max() < held[ecg.y_train[held] == label].min()


CSV = "patient,when,age,dose,sick\n" + "".join(
    f"p{i // 5},2024-01-{20 - i:02d},{30 + i},{i % 4},{'yes' if i % 3 else 'no'}\n"
    for i in range(20)
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(CSV)
    return path


def test_csv_splits_in_file_order(table: Path) -> None:
    data = load_csv(table, "sick", features=("age", "dose"))
    assert data.x_train.shape == (15, 2)
    assert data.x_test[:, 0].tolist() == [45, 46, 47, 48, 49]
    assert data.classes == ("no", "yes")
    assert data.y_test.tolist() == [0, 1, 1, 0, 1]


def test_csv_sorts_by_time(table: Path) -> None:
    data = load_csv(table, "sick", features=("age",), time="when")
    assert data.x_test[:, 0].tolist() == [34, 33, 32, 31, 30]


def test_csv_keeps_a_group_in_one_part(table: Path) -> None:
    data = load_csv(table, "sick", group="patient", features=("age",))
    assert data.x_test[:, 0].tolist() == [45, 46, 47, 48, 49]
    assert data.groups_train is not None
    assert set(data.groups_train) == {"p0", "p1", "p2"}
    _, held = validation_rows(data, 0.3)
    assert set(data.groups_train[held]) == {"p2"}


def test_csv_splits_at_random_rows_only_when_asked(table: Path) -> None:
    one, two = (load_csv(table, "sick", features=("age",), random_rows=3) for _ in range(2))
    assert np.array_equal(one.x_test, two.x_test)
    assert one.x_test[:, 0].tolist() != [45, 46, 47, 48, 49]
    assert one.order == "random"


def test_csv_marks_missing_cells(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\ufeffa,b,y\n1,,0\n?,2,1\nNA,nan,0\n4,5,1\n1,1,0\n2,2,1\n", encoding="utf-8")
    data = load_csv(path, "y", test_fraction=0.34)
    assert np.isnan(data.x_train).tolist() == [
        [False, True],
        [True, False],
        [True, True],
        [False] * 2,
    ]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (CSV, {"target": "ill"}, "no column 'ill', only patient, when"),
        (CSV, {"target": "sick"}, r"t\.csv:2: 'p0' in column 'patient' is no number"),
        (CSV, {"target": "sick", "features": ("sick",)}, "cannot be a feature"),
        (CSV, {"target": "sick", "features": ("age",), "group": "clinic"}, "no column 'clinic'"),
        (CSV, {"target": "sick", "features": ("age",), "time": "patient"}, "ISO 8601"),
        (CSV, {"target": "sick", "features": ("age",), "test_fraction": 1.0}, "between 0 and 1"),
        ("a,y\n1,0\nx,1\n", {"target": "y"}, r"t\.csv:3: 'x' in column 'a' is no number"),
        ("a,y\n1,0\ninf,1\n", {"target": "y"}, r"t\.csv:3: 'inf'"),
        ("a,y\n1,0\n1,2,3\n", {"target": "y"}, r"t\.csv:3: 3 cells where the header has 2"),
        ("a,y\n1,0\n1,\n", {"target": "y"}, r"t\.csv:3: the cell of column 'y' is missing"),
        ("a,a\n1,0\n", {"target": "a"}, "named twice"),
        ("a,\n1,0\n", {"target": "a"}, "must name every column"),
        ("", {"target": "a"}, "must name every column"),
        ("a,y\n", {"target": "y"}, "no rows"),
        ("y\n1\n", {"target": "y"}, "no column is left"),
        ("a,y\n1,0\n1,1\n", {"target": "y"}, "too few"),
        ("a,y\n" + "1,0\n" * 9, {"target": "y"}, "only one"),
        ("a,y\n" + "1,0\n" * 9 + "1,1\n" * 2, {"target": "y"}, "lacks the class 1"),
        ("a,y\n" + "1,0\n1,1\n" * 6 + "1,1\n" * 4, {"target": "y"}, "at least two classes"),
        ('a,y\n"1,0\n', {"target": "y"}, "no CSV file"),
    ],
)
def test_csv_errors_say_where(
    tmp_path: Path, text: str, options: dict[str, object], message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_csv(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_csv_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.csv"):
        load_csv(tmp_path / "absent.csv", "y")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        load_csv(tmp_path / "b.csv", "y")


def test_npz_splits_and_sorts_classes_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=np.arange(24.0).reshape(12, 1, 2), y=np.array([2, 10] * 6, dtype=np.uint8))
    data = load_npz(path)
    assert data.classes == ("2", "10")
    assert data.y_train.tolist() == [0, 1] * 4 + [0]
    assert data.x_test.shape == (3, 1, 2)


def test_npz_keeps_a_given_split(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    x, y = np.zeros((4, 3)), np.array([0, 1, 0, 1])
    np.savez(path, x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    assert len(load_npz(path).x_test) == 2


def test_npz_keeps_a_group_in_one_part(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    who = np.array([1, 2, 1, 2, 3, 3])
    np.savez(path, x=np.arange(6.0)[:, None], y=np.array([0, 1, 1, 0, 0, 1]), who=who)
    data = load_npz(path, group="who")
    assert data.x_test[:, 0].tolist() == [4, 5]


X, Y = np.zeros((8, 2)), np.array([0, 1] * 4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "no array 'y', only x"),
        ({"x": X, "y": Y[:5]}, "8 samples and 'y' has 5"),
        ({"x": X, "y": Y + 0.5}, "one whole number or string per sample"),
        ({"x": X, "y": X}, "one whole number or string per sample"),
        ({"x": X.astype(complex), "y": Y}, "real numbers"),
        ({"x": X[:, 0], "y": Y}, "real numbers of shape"),
        ({"x": X + np.inf, "y": Y}, "infinite"),
        ({"x": X.astype(object), "y": Y}, "plain arrays"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :1], "y_test": Y}, "must agree"),
        ({"x_train": X, "y_train": Y[:3], "x_test": X, "y_test": Y}, "8 samples and 3 labels"),
    ],
)
def test_npz_errors(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        load_npz(path)


def test_npz_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=X, y=Y)
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"d\.npz"):
            load_npz(path)
    np.save(tmp_path / "d.npy", X)
    with pytest.raises(InputError, match="single array"):
        load_npz(tmp_path / "d.npy")
    with pytest.raises(InputError, match="absent"):
        load_npz(tmp_path / "absent.npz")
