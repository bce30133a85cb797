"""Three nodes of nats-server as one cluster on loopback, and HAProxy in front: the clustered layout of docs/hub.md."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest
from ports import free_port

NODES = 3
_NODE = """
server_name: n{number}
listen: "127.0.0.1:{client}"
http: "127.0.0.1:{http}"
jetstream {{ store_dir: "{folder}", max_mem: 64MB, max_file: 4GB }}
cluster {{ name: aidpost, listen: "127.0.0.1:{route}", routes: [{routes}] }}
mqtt {{ listen: "127.0.0.1:{mqtt}" }}
"""
_BALANCER = """
defaults
  mode tcp
  timeout connect 2s
  timeout client 2m
  timeout server 2m
  retries 3
  option redispatch
listen mqtt
  bind 127.0.0.1:{port}
  balance leastconn
  default-server check inter 500ms fall 2 rise 2 on-marked-down shutdown-sessions
{servers}
"""


class NatsCluster:
    """Runs until `stop`; nodes may be killed and started again.

    Attributes
    ----------
    port
        HAProxy's: MQTT by whichever node is there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        programs = {name: shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin") for name in PROGRAMS}
        if missing := [name for name, path in programs.items() if path is None]:
            pytest.skip(f"apt-get install {' '.join(missing)}")
        self._nats, self._haproxy = (str(programs[name]) for name in PROGRAMS)
        ports = _free_ports(4 * NODES + 1)
        self.port, self._ports = ports[-1], [ports[4 * n : 4 * n + 4] for n in range(NODES)]
        self.nodes: list[subprocess.Popen[bytes]] = [self._start(number) for number in range(NODES)]
        self._wait_for_leader()
        self._balance()

    def kill(self, number: int) -> None:
        """SIGKILL."""
        self.nodes[number].kill()
        self.nodes[number].wait()

    def start(self, number: int) -> None:
        """Starts a node that was killed; it catches up by itself."""
        self.nodes[number] = self._start(number)

    def stop(self) -> None:
        for process in (self._balancer, *self.nodes):
            process.send_signal(signal.SIGKILL)
            process.wait()

    def pids(self) -> list[int]:
        return [node.pid for node in self.nodes]

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        client, http, route, mqtt = self._ports[number]
        routes = ", ".join(f'"nats://127.0.0.1:{ports[2]}"' for ports in self._ports)
        folder = self._folder / f"node-{number}"
        about = {"number": number, "client": client, "http": http, "route": route, "mqtt": mqtt}
        path = self._folder / f"node-{number}.conf"
        path.write_text(_NODE.format(**about, folder=folder, routes=routes))
        with (self._folder / f"node-{number}.log").open("ab") as log:
            return subprocess.Popen([self._nats, "-c", str(path)], stdout=log, stderr=log)

    def _balance(self) -> None:
        servers = "\n".join(f"  server n{n} 127.0.0.1:{ports[3]}" for n, ports in enumerate(self._ports))
        path = self._folder / "haproxy.cfg"
        path.write_text(_BALANCER.format(port=self.port, servers=servers))
        with (self._folder / "haproxy.log").open("wb") as log:
            self._balancer = subprocess.Popen([self._haproxy, "-db", "-f", str(path)], stdout=log, stderr=log)

    def _wait_for_leader(self) -> None:
        deadline = time.monotonic() + 60
        while not all(self._knows_leader(ports[1]) for ports in self._ports):
            assert time.monotonic() < deadline, "the cluster has no leader"
            time.sleep(0.2)

    def _knows_leader(self, port: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/jsz", timeout=2) as answer:
                cluster = json.load(answer).get("meta_cluster", {})
        except OSError:
            return False
        return bool(cluster.get("leader")) and cluster.get("cluster_size") == NODES


PROGRAMS = ("nats-server", "haproxy")


def _free_ports(count: int) -> Sequence[int]:
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return sorted(ports)
