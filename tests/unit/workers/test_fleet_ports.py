"""Ports two replicas of one host never share, and what a pending replica is said to wait for."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from heavy.core.errors import ConfigError
from heavy.profiles.loader import load_profiles
from workers.fleet.placement import Node, bundles_of, missing
from workers.fleet.ports import FIRST, HTTP_OFFSETS, LAST, PortLease

K2 = load_profiles().get("kimi-k2-thinking")
TAKE = """
import sys; from pathlib import Path; from workers.fleet.ports import PortLease
lease = PortLease.take("127.0.0.1", (0, 1), Path(sys.argv[1])); print(lease.port, flush=True)
sys.stdin.read()
"""


def test_leases_of_several_processes_never_overlap(tmp_path: Path) -> None:
    others = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        ports = [int(other.stdout.readline()) for other in others if other.stdout]
        ports += [PortLease.take("127.0.0.1", (0, 1), tmp_path).port for _ in range(20)]
        taken = [port + distance for port in ports for distance in (0, 1)]
        assert len(set(taken)) == len(taken)
    finally:
        for other in others:
            other.communicate("")


def test_a_lease_is_of_ports_nobody_listens_on_and_can_be_taken_again_after_its_release(
    tmp_path: Path,
) -> None:
    lease = PortLease.take("127.0.0.1", HTTP_OFFSETS, tmp_path)
    assert FIRST <= lease.port <= LAST - max(HTTP_OFFSETS)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", lease.port))
    lease.release()
    lease.release()
    for lock in tmp_path.iterdir():
        assert lock.stat().st_size == 0


def cluster(*gpus: float, free: float | None = None) -> list[Node]:
    return [Node(f"10.0.0.{i}", {"GPU": g}, {"GPU": g if free is None else free}) for i, g in enumerate(gpus)]


def test_a_gpu_count_no_node_has_is_said_with_what_there_is_and_what_to_do() -> None:
    told = missing(bundles_of(K2), cluster(4, 2))
    assert "needs 8 GPU on one node" in told
    assert "0 such nodes" in told
    assert "the largest of 2 has 4 GPU" in told
    assert "add nodes" in told


def test_nodes_that_are_full_are_told_from_nodes_that_are_too_small() -> None:
    told = missing(bundles_of(K2), cluster(8, 8, free=0))
    assert told == "needs 8 GPU on one node; 0 of 2 such nodes have that much free"


def test_a_gang_needs_a_node_for_each_bundle() -> None:
    serve = K2.serve.model_copy(update={"gpus": 16, "nodes": 2})
    gang = K2.model_copy(update={"serve": serve})
    assert bundles_of(gang) == [{"GPU": 8.0}, {"GPU": 8.0}]
    assert "needs 8 GPU on each of 2 nodes; the cluster has 1 such node" in missing(
        bundles_of(gang), cluster(8, 4)
    )
    assert missing(bundles_of(gang), cluster(8, 8)) == ""


def test_a_replica_that_reserves_nothing_waits_for_nothing() -> None:
    assert bundles_of(load_profiles().get("simulated")) == []
    assert missing([], []) == ""


def test_a_directory_for_leases_that_takes_no_files_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "full").touch()
    with pytest.raises(ConfigError, match=r"lock files in .*full/ports, .*make room there, or set TMPDIR"):
        PortLease.take("127.0.0.1", (0,), tmp_path / "full" / "ports")
