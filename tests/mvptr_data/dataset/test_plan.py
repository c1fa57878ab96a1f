from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvptr_data.dataset import layout, planning
from mvptr_data.dataset.plan import Plan, check_same_plan, load_plan, locate, read_keys, read_rows, ref_of
from mvptr_data.dataset.planning import PlannedInputs, append_plan, write_plan
from mvptr_data.errors import (
    BusyError,
    ConfigurationMismatchError,
    DamagedFileError,
    FormatVersionError,
    IncompleteError,
    InputError,
)
from mvptr_data.sources.images import ImageRef
from mvptr_data.storage import MAX_JSON_BYTES, Store

SOURCE = {"images": "somewhere", "split": None, "root": None}


def refs(*keys: str) -> list[ImageRef]:
    return [ImageRef(key=key, uri=f"/{number}/{key}.jpg") for number, key in enumerate(keys)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(keys=st.lists(st.sampled_from("abcdefgh"), max_size=25), size=st.integers(1, 7))
def test_every_input_has_one_place_and_duplicates_are_the_later_ones(
    keys: list[str], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = Store.at(tmp_path_factory.mktemp("plan"))
    plan = write_plan(store, refs(*keys), source=SOURCE, samples_per_shard=size)
    rows = [row for shard in range(plan.shards) for row in read_rows(store, shard)]
    assert [row["key"] for row in rows] == keys
    assert [row["uri"] for row in rows] == [ref.uri for ref in refs(*keys)]
    assert all(count == size for count in plan.rows[:-1]) and plan.images == len(keys)
    expected = ["duplicate_key" if key in keys[:number] else None for number, key in enumerate(keys)]
    assert [row["fault"] for row in rows] == expected
    assert plan.faults == sum(fault is not None for fault in expected)
    assert load_plan(store) == plan


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    parts=st.lists(
        st.tuples(st.lists(st.sampled_from("abcdefgh"), max_size=12), st.integers(1, 5)), min_size=2, max_size=4
    )
)
def test_a_plan_grows_by_parts_and_alters_no_earlier_shard(
    parts: list[tuple[list[str], int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = Store.at(tmp_path_factory.mktemp("plan"))
    plan, keys = None, []
    for number, (part, size) in enumerate(parts):
        before = {name: store.sha256(name) for name in store.names("plan") if not name.endswith("plan.json")}
        plan = append_plan(
            store,
            plan,
            [replace(ref, uri=f"/{number}{ref.uri}") for ref in refs(*part)],
            source={"images": str(number)},
            samples_per_shard=size,
        )
        keys += part
        assert {name: store.sha256(name) for name in before} == before
        check_same_plan(plan, store, {"images": str(number)}, size)
    assert plan is not None and load_plan(store) == plan
    rows = [row for shard in range(plan.shards) for row in read_rows(store, shard)]
    assert [row["key"] for row in rows] == keys
    expected = ["duplicate_key" if key in keys[:number] else None for number, key in enumerate(keys)]
    assert [row["fault"] for row in rows] == expected and plan.faults == len(keys) - expected.count(None)
    planned = PlannedInputs(store, plan)
    assert all(ref_of(row) in planned for row in rows)
    assert replace(refs("a")[0], uri="/elsewhere/a.jpg") not in planned


def test_a_fault_known_at_listing_never_owns_a_key(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    faulty = ImageRef(key="a", uri="/0/a.jpg", fault="torn_archive", message="cut")
    plan = write_plan(store, [faulty, *refs("a")], source=SOURCE, samples_per_shard=5)
    assert [row["fault"] for row in read_rows(store, 0)] == ["torn_archive", None]
    assert plan.faults == 1
    assert ref_of(read_rows(store, 0)[0]) == faulty


def test_file_names_that_are_not_utf8_have_a_row(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    write_plan(
        store,
        [ImageRef(key="bad\udcff", uri="/bad\udcff.jpg", fault="unsafe_key", message="x")],
        source=SOURCE,
        samples_per_shard=5,
    )
    assert read_keys(store, 0) == ["bad\\udcff"]


def test_the_digest_names_places_not_where_images_came_from(tmp_path: Path) -> None:
    plans = []
    for number, (source, keys) in enumerate([("x", "abc"), ("y", "abc"), ("x", "acb")]):
        plans.append(
            write_plan(
                Store.at(tmp_path / str(number)),
                [replace(ref, uri=source + ref.uri) for ref in refs(*keys)],
                source={"images": source},
                samples_per_shard=2,
            )
        )
    assert plans[0].digest == plans[1].digest != plans[2].digest


def test_another_input_is_refused_with_the_difference(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    plan = write_plan(store, refs("a"), source=SOURCE, samples_per_shard=2)
    check_same_plan(plan, store, SOURCE, 2)
    with pytest.raises(ConfigurationMismatchError, match="samples_per_shard: planned 2, asked 3"):
        check_same_plan(plan, store, SOURCE, 3)
    with pytest.raises(ConfigurationMismatchError, match="elsewhere"):
        check_same_plan(plan, store, {**SOURCE, "images": "elsewhere"}, 2)


def test_no_plan_and_another_version(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    with pytest.raises(IncompleteError, match="extract-regions"):
        load_plan(store)
    store.write_json(layout.PLAN, {"version": 7})
    with pytest.raises(FormatVersionError, match="7"):
        load_plan(store)


def test_keys_are_found_wherever_they_are(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    plan = write_plan(store, refs(*"abcdea"), source=SOURCE, samples_per_shard=2)
    assert [(shard, row["position"], row["fault"]) for shard, row in locate(store, plan, "a")] == [
        (0, 0, None),
        (2, 1, "duplicate_key"),
    ]
    assert list(locate(store, plan, "zz")) == []


@pytest.mark.parametrize("fault", ["torn_archive", "missing_file", "unreadable_file"])
def test_a_fault_that_has_healed_is_new_once(tmp_path: Path, fault: str) -> None:
    store = Store.at(tmp_path)
    sound, other = refs("a", "b")
    faulty = replace(sound, fault=fault, message="cut")
    plan = write_plan(store, [faulty, other], source=SOURCE, samples_per_shard=5)
    planned = PlannedInputs(store, plan)
    assert faulty in planned and other in planned and sound not in planned
    plan = append_plan(store, plan, [sound], source=SOURCE, samples_per_shard=5)
    assert [row["fault"] for row in read_rows(store, 1)] == [None]
    planned = PlannedInputs(store, plan)
    assert faulty in planned and sound in planned


@pytest.mark.parametrize("fault", ["duplicate_key", "unsafe_key", "broken_record"])
def test_a_fault_of_the_key_is_planned_for_good(tmp_path: Path, fault: str) -> None:
    store = Store.at(tmp_path)
    (sound,) = refs("a")
    plan = write_plan(store, [replace(sound, fault=fault, message="x")], source=SOURCE, samples_per_shard=5)
    assert sound in PlannedInputs(store, plan)


def test_an_image_that_heals_when_another_has_its_key_is_a_duplicate_once(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    (sound,) = refs("a")
    owner = replace(sound, uri="/elsewhere/a.jpg")
    faulty = replace(sound, fault="missing_file", message="x")
    plan = write_plan(store, [faulty, owner], source=SOURCE, samples_per_shard=5)
    assert sound not in PlannedInputs(store, plan)
    plan = append_plan(store, plan, [sound], source=SOURCE, samples_per_shard=5)
    assert [row["fault"] for row in read_rows(store, 1)] == ["duplicate_key"]
    assert sound in PlannedInputs(store, plan)


@pytest.mark.parametrize("grown", [False, True])
def test_a_plan_that_another_run_stored_meanwhile_is_not_replaced(tmp_path: Path, grown: bool) -> None:
    store = Store.at(tmp_path)
    before = write_plan(store, refs("x"), source=SOURCE, samples_per_shard=2) if grown else None
    files: dict[str, str] = {}

    def listing() -> Iterator[ImageRef]:
        yield from refs("a", "b")
        append_plan(store, before, refs(*"cdef"), source={"images": "another's"}, samples_per_shard=2)
        files.update({name: store.sha256(name) for name in store.names("plan")})
        yield from refs("g", "h")

    with pytest.raises(BusyError, match=r"plan/plan\.json was written by another run"):
        append_plan(store, before, listing(), source=SOURCE, samples_per_shard=2)
    assert {name: store.sha256(name) for name in store.names("plan")} == files


def test_a_plan_of_equal_length_that_another_run_stored_at_the_end_is_not_replaced(tmp_path: Path) -> None:
    store, others = Store.at(tmp_path), Store.at(tmp_path / "other")
    plan = write_plan(store, refs("x"), source=SOURCE, samples_per_shard=2)
    write_plan(others, refs("y"), source=SOURCE, samples_per_shard=2)
    assert others.size(layout.PLAN) == store.size(layout.PLAN)

    def listing() -> Iterator[ImageRef]:
        yield from refs("a")
        store.write(layout.PLAN, others.read(layout.PLAN))

    with pytest.raises(BusyError, match="another run"):
        append_plan(store, plan, listing(), source=SOURCE, samples_per_shard=2)
    assert store.read(layout.PLAN) == others.read(layout.PLAN)


def test_nothing_is_written_once_the_lock_is_lost(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    calls = []

    def check() -> None:
        calls.append(len(store.names("plan")))
        if len(calls) == 3:
            raise BusyError("lost")

    with pytest.raises(BusyError, match="lost"):
        write_plan(store, refs(*"abcdef"), source=SOURCE, samples_per_shard=2, check=check)
    assert calls == [0, 1, 2] and not store.exists(layout.PLAN)


def test_a_plan_is_no_larger_than_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = planning.MAX_SHARDS
    largest = Plan(parts=(), rows=(10**6,) * shards, sha256=("0" * 64,) * shards, faults=0).to_json()
    assert len(json.dumps(largest, indent=1)) < 0.995 * MAX_JSON_BYTES
    monkeypatch.setattr(planning, "MAX_SHARDS", 2)
    store = Store.at(tmp_path)
    with pytest.raises(InputError, match="more than 2 shards of 2"):
        write_plan(store, refs(*"abcde"), source=SOURCE, samples_per_shard=2)
    assert write_plan(store, refs(*"abcd"), source=SOURCE, samples_per_shard=2).shards == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": []}, "has no parts"),
        ({"parts": {}}, "as parts, not a list"),
        ({"parts": [{"source": [], "samples_per_shard": 1, "shards": 1, "keys_sha256": ""}]}, r"as parts\[0\]\.source"),
        ({"rows": [-1]}, r"has -1 as rows\[0\], not a count"),
        ({"rows": [10**400]}, r"as rows\[0\]"),
        ({"rows": 3}, "as rows, not a list"),
        ({"sha256": [None]}, r"as sha256\[0\], not text"),
        ({"sha256": []}, "counts its shards in different ways"),
        ({"faults": "0"}, "as faults, not a count"),
        ({"digest": "0" * 64}, "does not have the digest it promises"),
    ],
)
def test_a_plan_of_another_form_is_a_typed_error(tmp_path: Path, change: dict, message: str) -> None:
    store = Store.at(tmp_path)
    write_plan(store, refs("a"), source={}, samples_per_shard=1)
    store.write_json("plan/plan.json", store.read_json("plan/plan.json") | {"digest": None} | change)
    with pytest.raises(DamagedFileError, match=rf"plan\.json .*{message}"):
        load_plan(store)


def test_a_plan_file_of_another_form_or_none_is_a_typed_error(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    write_plan(store, refs("a"), source={}, samples_per_shard=1)
    file = tmp_path / "plan/00000.parquet"
    sound = pq.read_table(file)
    pq.write_table(sound.set_column(1, "key", pa.array([None], pa.string())), file)
    with pytest.raises(DamagedFileError, match=r"00000\.parquet has rows without key"):
        read_keys(store, 0)
    pq.write_table(sound.set_column(4, "offset", pa.array(["../x"])), file)
    with pytest.raises(DamagedFileError, match=r"'offset' \(string\) where 'offset' \(int64\)"):
        read_rows(store, 0)
    file.unlink()
    with pytest.raises(DamagedFileError, match=r"00000\.parquet is missing"):
        read_rows(store, 0)
