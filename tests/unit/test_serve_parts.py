"""The parts of an endpoint that need no Ray: queue, table, keys, roles, meters, folders."""

import json
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from raylora.cluster.serve import keys, table
from raylora.cluster.serve.adapter_folders import adapter_in, adapter_inside, check_inside, find
from raylora.cluster.serve.endpoint import coming_up, host_warning
from raylora.cluster.serve.meters import TOLD_APART, Meters, together
from raylora.cluster.serve.middleware import role_of
from raylora.cluster.serve.replica import device_of
from raylora.cluster.serve.scaling import replicas_for
from raylora.cluster.serve.service import check_inputs
from raylora.cluster.serve.table import Table, Version
from raylora.cluster.serve.table_start import configure
from raylora.cluster.session import Cluster
from raylora.config import ServeSection
from raylora.errors import ClusterError, ConfigError, DataError, KeyMissingError, TooLargeError, UnknownAdapterError
from raylora.model.serving.cost import Cost, fit_cost, least_seconds
from raylora.model.serving.queue import Waiting, cheapest, choose
from raylora.tasks import task_of


def waiting(*tokens: int, batch_keys: str = "") -> list[Waiting]:
    return [Waiting(n, batch_key) for n, batch_key in zip(tokens, batch_keys or "a" * len(tokens), strict=True)]


def test_all_that_waits_runs_together_where_that_is_cheapest() -> None:
    assert sorted(choose(waiting(5, 9, 3), 27, costs=[Cost(20, 1)])) == [0, 1, 2]


def test_rows_of_other_lengths_wait_where_padding_costs_more_than_another_forward() -> None:
    rows = waiting(5, 100, 6, 90, 5)
    assert sorted(choose(rows, 2048, costs=[Cost(50, 1)])) == [0, 2, 4]
    assert sorted(choose(rows, 2048, costs=[Cost(1000, 1)])) == [0, 1, 2, 3, 4]


def test_a_division_is_the_cheapest_of_all() -> None:
    lengths = np.array([2, 3, 3, 7, 8, 8, 8, 20])

    def cost(starts: list[int]) -> float:
        ends = [*starts[1:], len(lengths)]
        return sum(10 + (end - start) * lengths[end - 1] for start, end in zip(starts, ends, strict=True))

    every = [[0, *inner] for n in range(8) for inner in combinations(range(1, 8), n)]
    fits = [s for s in every if all((e - b) * lengths[e - 1] <= 24 or e - b == 1 for b, e in pairwise([*s, 8]))]
    assert cost(cheapest(lengths, 24, [Cost(10, 1)])) == min(map(cost, fits))


def test_a_batch_stays_within_the_budget() -> None:
    rows = waiting(10, 100, 9, 11, 10, 100)
    chosen = choose(rows, 44, costs=[Cost(1000, 1)])
    assert 0 in chosen
    assert len(chosen) > 1
    assert len(chosen) * max(rows[i].tokens for i in chosen) <= 44


def test_a_row_longer_than_the_budget_runs_alone() -> None:
    assert choose(waiting(500, 3, 3), 64, costs=[Cost(1000, 1)]) == [0]


def test_lanes_are_not_mixed() -> None:
    assert sorted(choose(waiting(4, 4, 4, 4, batch_keys="abab"), 100, costs=[Cost(10, 1)])) == [0, 2]


def test_every_row_runs_in_the_end() -> None:
    rows = waiting(*[(i * 7919) % 90 + 1 for i in range(300)])
    left, padded = list(rows), 0
    while left:
        chosen = choose(left, 256, costs=[Cost(30, 1)])
        assert 0 in chosen
        padded += len(chosen) * max(left[i].tokens for i in chosen)
        left = [row for i, row in enumerate(left) if i not in set(chosen)]
    assert padded < 1.1 * sum(row.tokens for row in rows)


def test_the_cost_of_a_forward_is_a_line_through_its_timings() -> None:
    cost = fit_cost([10, 20, 40], [0.006, 0.007, 0.009], threads=2)
    assert (cost.base_s, cost.token_s, cost.threads) == (pytest.approx(0.005), pytest.approx(0.0001), 2)
    assert fit_cost([10, 20], [0.001, 0.005]).base_s == 0


def test_few_tokens_are_cheaper_on_one_thread_and_many_on_two() -> None:
    costs = [Cost(0.006, 0.00016, threads=1), Cost(0.011, 0.0001, threads=2)]
    assert least_seconds(np.array([20, 500]), costs) == pytest.approx([0.0092, 0.061])
    rows = waiting(16, 16, 16, 16)  # apart, on one thread each, they would cost more than together on one
    assert sorted(choose(rows, 2048, costs)) == [0, 1, 2, 3]


def test_a_swap_keeps_the_version_before_for_a_rollback() -> None:
    first = Table().put("x", "/a", "d1")
    second = first.put("x", "/b", "d2")
    assert (second.entry("x").current.path, second.entry("x").current.number) == ("/b", 2)
    back = second.rollback("x")
    assert (back.entry("x").current.path, back.entry("x").current.number) == ("/a", 1)
    assert back.put("x", "/c", "d3").entry("x").current.number == 3
    assert back.revision == 3


def test_a_canary_takes_its_share_until_it_is_promoted_or_rolled_back() -> None:
    canary = Table().put("x", "/a", "d1").put("x", "/b", "d2", traffic=0.1)
    entry = canary.entry("x")
    assert [entry.pick(draw).path for draw in (0.0, 0.09, 0.1, 0.99)] == ["/b", "/b", "/a", "/a"]
    assert canary.rollback("x").entry("x").canary is None
    promoted = canary.put("x", "/b", "d2").entry("x")
    assert (promoted.current.number, promoted.canary, promoted.previous) == (2, None, entry.current)
    assert canary.put("x", "/b", "d2", traffic=0.5).entry("x").traffic == 0.5
    assert canary.rollback("x").put("x", "/c", "d3").entry("x").current.number == 3  # no number stands for two versions


def test_a_canary_needs_something_to_share_with() -> None:
    with pytest.raises(ConfigError, match="put it whole first"):
        Table().put("x", "/a", "d", traffic=0.5)


def test_a_table_reads_back_as_it_was_written() -> None:
    whole = configure(Table(), {"x": "/a"}, {"x": "d1"}, "x").put("x", "/b", "d2", traffic=0.25)
    assert table.load(whole.dump()) == whole


def test_an_unknown_adapter_is_named_with_a_close_one() -> None:
    known = Table().put("reviews", "/a", "d")
    with pytest.raises(UnknownAdapterError, match="did you mean 'reviews'"):
        known.entry("review")
    with pytest.raises(ConfigError, match="no previous version"):
        known.rollback("reviews")


def test_a_restart_keeps_what_http_changed_unless_the_config_says_otherwise() -> None:
    started = configure(Table(), {"x": "/a", "y": "/y"}, {"x": "d1", "y": "d2"}, None)
    assert started.default == "x"
    swapped = started.put("x", "/b", "d3").put("z", "/z", "d4")
    again = configure(swapped, {"x": "/a", "y": "/y"}, {}, None)
    assert again == swapped
    changed = configure(swapped, {"x": "/c"}, {"x": "d5"}, None)
    assert changed.entry("x").current.path == "/c"
    assert sorted(changed.entries) == ["x", "z"]  # y left the config; z came over HTTP


def test_a_start_takes_files_that_were_replaced_in_place_as_a_new_version_and_keeps_the_old_one() -> None:
    started = configure(Table(), {"x": "/run"}, {"x": "d1"}, None)
    again = configure(started, {"x": "/run"}, {"x": "d2"}, None).entry("x")
    assert (again.current, again.previous) == (Version(2, "/run", "d2"), started.entry("x").current)
    put = started.put("x", "/run/adapter", "d3").put("x", "/c", "d4", traffic=0.2)  # a run's folder stands for it
    retrained = configure(put, {"x": "/run"}, {"x": "d5"}, None).entry("x")
    assert (retrained.current, retrained.traffic) == (Version(4, "/run/adapter", "d5"), 0.2)
    moved = started.put("x", "/elsewhere", "d3")
    assert configure(moved, {"x": "/run"}, {"x": "d2"}, None).entries == moved.entries


def test_a_rollback_of_files_that_were_replaced_in_place_outlives_a_restart() -> None:
    """Whoever took the new files from the config's path, the start or a PUT; files that are newer still are taken."""
    config = {"x": "/run"}
    started = configure(Table(), config, {"x": "d1"}, None)
    retrained = configure(started, config, {"x": "d2"}, None)
    for bad in (retrained, started.put("x", "/run/adapter", "d2"), started.put("x", "/run", "d2", traffic=0.1)):
        back = bad.rollback("x")
        assert back.entry("x").current == Version(1, "/run", "d1")
        assert configure(back, config, {"x": "d2"}, None) == back
        assert configure(back, config, {"x": "d3"}, None).entry("x").current == Version(3, "/run", "d3")
    canary = started.put("x", "/run", "d2", traffic=0.1)
    assert configure(canary, config, {"x": "d2"}, None) == canary
    away = configure(started.put("x", "/else", "d9"), config, {"x": "d2"}, None).rollback("x")
    assert configure(away, config, {"x": "d2"}, None) == away


def test_another_default_and_a_deletion_outlive_restarts_until_the_config_changes() -> None:
    config, digests = {"a": "/a", "b": "/b"}, {"a": "d1", "b": "d2"}
    started = configure(Table(), config, digests, "a")
    promoted = started.promote("b")
    assert configure(promoted, config, digests, "a") == promoted
    assert configure(promoted, config, digests, None).default == "b"
    assert configure(configure(promoted, config, digests, "b"), config, digests, "a").default == "a"
    dropped = promoted.drop("b")
    for default in ("a", None):
        again = configure(dropped, config, digests, default)
        assert (list(again.entries), again.default) == (["a"], None)
    assert configure(dropped, config, {**digests, "b": "d3"}, "a").entries.keys() == {"a"}  # retrained all the same
    changed = configure(dropped, {**config, "b": "/new"}, {"a": "d1", "b": "d2"}, "a")
    assert (changed.entry("b").current.path, changed.default) == ("/new", "a")
    without = configure(dropped, {"a": "/a"}, digests, "a")
    assert "b" in configure(without, config, digests, "a").entries
    put = dropped.put("b", "/elsewhere", "d4")
    assert configure(put, config, digests, "a") == put
    assert "b" not in configure(put, {"a": "/a"}, digests, "a").entries


def test_a_table_of_earlier_code_goes_through_a_start() -> None:
    """It kept the config's path in each entry, and neither the digest nor the default of the config."""
    first, second = ({"number": i, "path": "/run/adapter", "digest": f"d{i}"} for i in (1, 2))
    entry = {"current": first, "previous": second, "canary": None, "traffic": 0.0, "configured": "/run", "newest": 2}
    moved = {**entry, "current": {**first, "path": "/else"}, "previous": None}
    entries = {"x": entry, "gone": entry, "put": {**entry, "configured": None}, "moved": moved}
    old = table.load(json.dumps({"revision": 7, "default": "put", "entries": entries}))
    config = {"x": "/run", "moved": "/run"}
    again = configure(old, config, {"x": "d2", "moved": "d2"}, None)
    assert (list(again.entries), again.default) == (["x", "put", "moved"], "put")
    assert [again.entry(name) for name in again.entries] == [old.entry(name) for name in again.entries]
    assert configure(old, config, {"x": "d3"}, "x").entry("x").current == Version(3, "/run/adapter", "d3")
    change = {"revision": 8, "default": "put", "name": "y", "entry": entry}
    after = old.after(table.load_changes(json.dumps(change)))
    assert (after.configured["y"].path, after.configured["y"].digest) == ("/run", "d2")


def test_a_dropped_default_is_no_default() -> None:
    assert Table().put("x", "/a", "d").promote("x").drop("x").default is None


def test_a_key_fits_its_role_and_an_admins_every_role(tmp_path: Path) -> None:
    predict, admin = keys.make("predict"), keys.make("admin")
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{predict.line}\n\n{admin.line}  # operations\n")
    known = keys.read(str(file), {})
    assert predict.key not in file.read_text()
    keys.check(f"Bearer {predict.key}", known, "predict")
    keys.check(f"bearer {admin.key}", known, "admin")
    keys.check(f"Bearer {admin.key}", known, "predict")
    for header, role in (
        (f"Bearer {predict.key}", "admin"),
        (None, "predict"),
        ("Bearer ", "predict"),
        (predict.key, "predict"),
    ):
        with pytest.raises(KeyMissingError, match="Authorization: Bearer"):
            keys.check(header, known, role)
    assert keys.read("env:KEYS", {"KEYS": admin.line}) == [known[1]]


@pytest.mark.parametrize("text", ["admin", "root " + "0" * 64, "admin short", "secret-key-in-plain-text"])
def test_a_wrong_line_of_keys_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="line 1") as error:
        keys.read("env:KEYS", {"KEYS": text})
    assert "secret" not in str(error.value)


def test_calls_that_change_adapters_are_an_admins() -> None:
    assert {role_of(*call) for call in (("PUT", "/adapters/x"), ("DELETE", "/adapters/x"))} == {"admin"}
    assert {role_of("POST", f"/adapters/x/{word}") for word in ("default", "rollback")} == {"admin"}
    predicts = [("POST", "/predict"), ("POST", "/adapters/x/predict"), ("GET", "/adapters"), ("GET", "/metrics")]
    assert {role_of(*call) for call in [*predicts, ("POST", "/v2/models/x/infer"), ("GET", "/info")]} == {"predict"}
    assert {role_of("GET", path) for path in ("/", "/health", "/ready", "/docs", "/v2/health/live")} == {None}
    assert role_of("POST", "/") == "predict"


def test_meters_of_several_replicas_are_told_apart() -> None:
    first, second = Meters(), Meters()
    first.count_inputs("x", 3)
    second.count_inputs("x", 4)
    text = together({"a": first.text(), "b": second.text()}).decode()
    assert 'raylora_inputs_total{adapter="x",replica="a"} 3.0' in text
    assert 'raylora_inputs_total{adapter="x",replica="b"} 4.0' in text
    assert text.count("# TYPE raylora_inputs_total counter") == 1


def test_meters_tell_so_many_adapters_apart_and_no_more() -> None:
    meters = Meters()
    for i in range(TOLD_APART + 5):
        meters.count_inputs(f"a{i}", 2)
    meters.count_inputs("a0", 1)
    text = meters.text()
    assert 'raylora_inputs_total{adapter="a0"} 3.0' in text
    assert 'raylora_inputs_total{adapter="(others)"} 10.0' in text
    assert text.count("raylora_inputs_total{") == TOLD_APART + 1


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([], DataError, "at least one"),
        (["a"] * 5, TooLargeError, "4 inputs"),
        (["x" * 11], TooLargeError, "input 0 has 11 characters"),
        (["a", " \n"], DataError, "input 1 is blank"),
        (["a", ("b", "c")], DataError, "all texts or all pairs"),
        (["\ud800"], DataError, "input 0 is not Unicode"),
        ([("a", "")], DataError, "input 0 is blank"),
    ],
)
def test_inputs_that_cannot_be_are_refused(inputs: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_inputs(inputs, 4, 10)


def test_inputs_of_any_script_pass() -> None:
    check_inputs(["plain", "déjà", "中文", "🙂", "a\x00b"], 5, 10)


@pytest.mark.parametrize(
    ("tokens", "outside", "replicas"), [(0, 0, 0), (0, 1, 1), (1, 1, 1), (4096, 9, 1), (4097, 9, 2)]
)
def test_replicas_follow_tokens(tokens: float, outside: float, replicas: int) -> None:
    assert replicas_for(tokens, outside, 4096) == replicas


def test_a_path_outside_the_roots_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (root / "link").symlink_to(tmp_path / "secret")
    assert check_inside(str(root / "a"), [str(root)]) == str((root / "a").resolve())
    for path in (f"{root}/../secret", str(root / "link"), str(tmp_path / "rootless"), "/etc/passwd", "s3://b/root"):
        with pytest.raises(ConfigError, match="must be inside"):
            check_inside(path, [str(root)])
    assert check_inside("s3://b/root/x?region=a", ["s3://b/root?region=a"]) == "s3://b/root/x?region=a"
    for path in ("s3://b/rootless", "s3://b/root/x?endpoint_override=evil", "file:///etc"):
        with pytest.raises(ConfigError, match="must be inside"):
            check_inside(path, ["s3://b/root?region=a", str(root)])
    for step in ("..", "%2e%2e", "%2E.", ".%2e", "x%2f..%2f..", "x%5c%2e%2e%5c.."):
        with pytest.raises(ConfigError, match=r"must not hold `\.\.`"):
            check_inside(f"s3://bucket/root/{step}/other", ["s3://bucket/root"])


def adapter_of(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("raylora.json", "adapter_model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def test_links_out_of_the_root_are_refused_wherever_they_stand(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", adapter_of(tmp_path / "outside")
    adapter_of(root / "plain")
    (root / "newest").symlink_to(root / "plain")  # within the root links are fine
    (root / "folder").symlink_to(outside)
    (root / "run").mkdir()
    (root / "run" / "adapter").symlink_to(outside)
    (adapter_of(root / "weights") / "adapter_model.safetensors").unlink()
    (root / "weights" / "adapter_model.safetensors").symlink_to(outside / "adapter_model.safetensors")
    (adapter_of(root / "tokenizer") / "tokenizer.json").symlink_to("/etc/passwd")
    for name in ("plain", "newest"):
        assert adapter_inside(str(root / name), [str(root)]) == find(str(root / "plain"))
    for name in ("folder", "run", "weights", "tokenizer", "../outside"):
        with pytest.raises(ConfigError, match="must be inside"):
            adapter_inside(str(root / name), [str(root)])
    assert adapter_inside(str(root / "nobody"), [str(root)]) is None


def test_a_file_in_the_place_of_a_folder_holds_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert adapter_in(str(tmp_path / "file")) is None


def test_a_runs_folder_stands_for_the_adapter_in_it(tmp_path: Path) -> None:
    inner = tmp_path / "run" / "adapter"
    inner.mkdir(parents=True)
    for name in ("raylora.json", "adapter_model.safetensors"):
        (inner / name).write_text("{}")
    place = find(str(tmp_path / "run"))
    assert place.path == str(inner)
    (inner / "adapter_model.safetensors").write_text("changed")
    assert find(str(tmp_path / "run")).state != place.state


def test_scores_take_the_form_of_the_task() -> None:
    logits = np.array([[0.0, 0.0, np.log(2.0)]])
    assert task_of(None).scores(logits)[0].tolist() == pytest.approx([0.25, 0.25, 0.5])
    assert task_of(None).scores(logits, "sigmoid")[0].tolist() == pytest.approx([0.5, 0.5, 2 / 3])
    assert task_of(None).scores(np.array([[-1000.0, 1000.0]]), "sigmoid").tolist() == [[0.0, 1.0]]
    assert task_of(None).scores(logits, "none")[0].tolist() == logits[0].tolist()


def test_a_replica_that_asked_for_no_gpu_uses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def device(**options: float) -> str:
        return device_of(ServeSection(ray_actor_options=options)).type

    assert device(num_cpus=1, num_gpus=1) == "cpu"  # there is none
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device(num_cpus=1) == device(num_gpus=0) == "cpu"
    assert device(num_gpus=1) == device(num_gpus=0.25) == "cuda"


def test_an_endpoint_on_several_nodes_does_not_hide_on_loopback() -> None:
    one, two = (Cluster(False, "10.0.0.1:6379", nodes) for nodes in (({"CPU": 2.0},), ({"CPU": 2.0}, {"CPU": 2.0})))
    assert "Set serve.host=0.0.0.0" in (host_warning("127.0.0.1", two) or "")
    assert not host_warning("127.0.0.1", one) and not host_warning("0.0.0.0", two)


def test_a_serve_that_does_not_come_up_is_one_error() -> None:
    with pytest.raises(ClusterError, match=r"did not come up: no answer\n  why\nOn a busy machine"), coming_up():
        raise RuntimeError("no answer\n\n  why")
