"""Every party on a host of its own: what reaches what, a run to its end, and a link that is cut for a while."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.clock import SystemClock
from coordinator.members.founding import Founding, found
from llmasos.simulation.deployment import edit_line
from participant.memory.journal import Journal
from tests.support.drafts import make_draft
from tests.support.federations import CONSORTIUM, COORDINATOR, NAMES, PARTICIPANT, Federation, until
from tests.support.hosts import HostedProcesses, Hosts, can_make_hosts

pytestmark = pytest.mark.skipif(not can_make_hosts(), reason="network namespaces need root, Linux and `ip`")

WORK, ENROLMENT = 7443, 7444
KNOCK = """
import socket, sys
for place in sys.argv[1:]:
    host, port = place.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        print("open")
    except OSError as error:
        print(type(error).__name__)
"""


class HostedFederation(Federation):
    """The same by the documented commands alone, each on its party's host; the operator has a host and a home of its own."""

    def __init__(self, folder: Path, hosts: Hosts) -> None:
        super().__init__(folder)
        self.hosts = hosts
        self.processes = HostedProcesses(hosts)
        self.operator_home = folder / "operator-home"

    def found(self) -> None:
        here = self.hosts.address("coordinator")
        founding = Founding(CONSORTIUM, work_address=f"{here}:{WORK}", enrolment_address=f"{here}:{ENROLMENT}")
        found(self.coordinator_home, founding, SystemClock())
        shutil.copytree(self.coordinator_home / "operator", self.operator_home / "operator")

    def _pin_ports(self) -> None:
        """They are pinned."""

    def operate(self, *words: str) -> str:
        """A command of the operator's, on its host."""
        argv = (*COORDINATOR, *words, "--home", str(self.operator_home))
        return self.processes.run("operator", argv, log=self.log("operator"))

    def participate(self, name: str, *words: str) -> str:
        """A command of an institution's, on its host."""
        argv = (*PARTICIPANT, *words, "--home", str(self.home(name)))
        return self.processes.run(name, argv, log=self.log(name))

    def join(self, name: str) -> None:
        invitation = self.folder / f"{name}.inv"
        invitation.write_text(self.operate("institution", "invite", name))
        self.data(name).mkdir(parents=True)
        (self.data(name) / "text.txt").write_text(f"the text of {name}\n" * 50)
        self.participate(name, "join", str(invitation), "--data", str(self.data(name)), "--answer", "accept")
        edit_line(self.home(name) / "policy.yaml", r"metrics_visibility: pooled", "metrics_visibility: institution")
        command = f"worker:\n  command: {json.dumps(list(self._worker or ()))}"
        edit_line(self.home(name) / "participant.yaml", r"worker:", command)

    def has_signed(self, name: str) -> bool:
        """Whether an institution's journal holds a contribution."""
        with closing(Journal(self.home(name) / "journal.sqlite")) as journal:
            return any(each.slot.startswith("contribution/") for each in journal.all_signed())

    def knock(self, name: str, *places: str) -> list[str]:
        """What a host finds at other hosts' ports."""
        argv = self.hosts.on(name, sys.executable, "-I", "-c", KNOCK, *places)
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[HostedFederation]:
    with Hosts("coordinator", *NAMES, "operator") as hosts, HostedFederation(tmp_path, hosts) as running:
        yield running


def test_a_federation_of_hosts_outlives_a_cut_link(federation: HostedFederation) -> None:
    hosts = federation.hosts
    coordinator, bank = hosts.address("coordinator"), hosts.address("bank")
    ports = [f"{coordinator}:{port}" for port in (WORK, ENROLMENT, 22)]
    assert federation.knock("clinic", *ports) == ["open", "open", "ConnectionRefusedError"]
    assert "open" not in federation.knock("clinic", f"{bank}:{WORK}", f"{hosts.address('operator')}:{WORK}")

    federation.start_participants()
    federation.hold("bank")
    draft = make_draft(federation.folder / "draft", rounds=2)
    run = draft.statement.run
    federation.operate("run", "start", str(draft.folder))
    watch = (*COORDINATOR, "run", "watch", run, "--home", str(federation.operator_home))
    watching = federation.processes.start("operator", watch, log=federation.log("watch"), capture=True)

    federation.wait_until_open(run, 1)
    federation.wait_for(lambda state: len(state.runs[run].rounds[0].contributions) == 2, "two contributed")
    federation.wait_until_holding("bank", run)
    hosts.cut("bank")
    federation.release("bank")
    until(lambda: federation.has_signed("bank"), "bank has trained, and signed its contribution")
    diagnosed = subprocess.run(
        hosts.on("bank", *PARTICIPANT, "doctor", "--home", str(federation.home("bank"))),
        capture_output=True,
        text=True,
        check=False,
    )
    assert diagnosed.returncode == 1
    assert re.search(rf"^fail  work port +{re.escape(coordinator)}:{WORK} cannot be", diagnosed.stdout, re.MULTILINE)
    assert len(federation.state().runs[run].rounds[0].contributions) == 2

    hosts.mend("bank")
    record = federation.wait_until_ended(run)
    assert record.ended is not None
    assert record.ended.reason == "rounds-done"
    assert [sorted(each.contributions) for each in record.rounds] == [sorted(NAMES)] * 3
    shown, _ = watching.process.communicate(timeout=30)
    assert watching.exit_code == 0, watching.log_tail()
    assert "rounds-done" in shown.decode()
    healthy = federation.participate("bank", "doctor", "--format", "json")
    assert json.loads(healthy)["verdict"] in ("ok", "warn")


def test_no_host_is_left_behind_when_one_cannot_be_made() -> None:
    def namespaces() -> list[str]:
        listed = subprocess.run(("ip", "netns", "list"), capture_output=True, text=True, check=True).stdout
        return [line.split()[0] for line in listed.splitlines()]

    hosts = Hosts("coordinator", "clinic", "/no name/")
    with pytest.raises(subprocess.CalledProcessError), hosts:
        pass
    assert [name for name in namespaces() if name.startswith(hosts._prefix)] == []
