"""Settings of the store in a cluster, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidings_server.config import ConfigError, ScyllaSettings, Settings, load
from tidings_server.storage.base import StoreUnavailable
from tidings_server.storage.scylla import ScyllaStore
from tidings_server.storage.sqlite import SqliteStore
from tidings_server.stores import make_store, scylla_options


def problem(tmp_path: Path, text: str) -> str:
    path = tmp_path / "server.toml"
    path.write_text(f"[scylla]\n{text}\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "copies"),
    [("1", {"": 1}), ("east:3,west:2", {"east": 3, "west": 2}), (" east : 3 ", {"east": 3})],
)
def test_replication_is_read(text: str, copies: dict[str, int]) -> None:
    assert ScyllaSettings(replication=text, consistency="everywhere").copies() == copies


@pytest.mark.parametrize("text", ["", "3,4", "a:3,a:2", "x", "10", "0", "-1", ":3,a:3", "a:3,"])
def test_replication_that_means_nothing_is_refused(tmp_path: Path, text: str) -> None:
    assert "scylla.replication: " in problem(tmp_path, f'replication = "{text}"')


def test_two_data_centres_need_a_home_or_the_word_of_all(tmp_path: Path) -> None:
    two = 'replication = "east:3,west:3"'
    assert "fork logs" in problem(tmp_path, two)
    ScyllaSettings(replication="east:3,west:3", home_datacenter="east")
    ScyllaSettings(replication="east:3,west:3", consistency="everywhere")


def test_halves_are_refused(tmp_path: Path) -> None:
    assert "go together" in problem(tmp_path, 'username = "ann"')
    assert "tls is off" in problem(tmp_path, 'tls_ca_file = "ca.pem"')
    assert "scylla.keyspace" in problem(tmp_path, 'keyspace = "x; drop"')


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    assert "letmein" not in problem(tmp_path, 'password = "letmein"')
    settings = ScyllaSettings(username="ann", password="letmein")  # type: ignore[arg-type]
    assert "letmein" not in repr(settings)
    assert scylla_options(settings).password == "letmein"


def test_the_store_is_chosen_by_the_setting(tmp_path: Path) -> None:
    embedded = Settings.model_validate({"store": {"path": tmp_path / "tidings.db"}})
    assert isinstance(make_store(embedded, lambda: "new"), SqliteStore)
    cluster = Settings.model_validate(
        {"store": {"kind": "scylla"}, "scylla": {"hosts": "a, b", "port": 1}}
    )
    assert isinstance(make_store(cluster, lambda: "new"), ScyllaStore)
    options = scylla_options(cluster.scylla)
    assert (options.hosts, options.port, options.replication) == (("a", "b"), 1, {"": 3})
    assert options.tls is None


def test_files_for_tls_that_are_not_there_are_told(tmp_path: Path) -> None:
    settings = ScyllaSettings(tls=True, tls_ca_file=tmp_path / "absent.pem")
    with pytest.raises(StoreUnavailable, match="TLS"):
        scylla_options(settings)
