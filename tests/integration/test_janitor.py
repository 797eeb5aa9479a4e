"""What is left when Valkeep is killed at any moment: nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.waiting import until
from valkeep.runtime import servers
from valkeep.runtime.janitor import Janitor, started

KEEPER = """\
import sys, time
from pathlib import Path
from valkeep.runtime import servers
from valkeep.runtime.janitor import Janitor
from valkeep.runtime.node import Node
folder = Path(sys.argv[1])
janitor = Janitor()
janitor.remove(folder)
janitor.run(["touch", sys.argv[2]])
print(janitor.pid, flush=True)
binary = servers.find("newest-valkey")
for number in range(3):
    node = Node.start(binary, {"appendonly": "yes"}, directory=folder / str(number)).__enter__()
    janitor.end(node.pid)
    print(node.pid, flush=True)
print("up", flush=True)
while True:
    (folder / "more").mkdir(exist_ok=True)
    (folder / "more" / str(time.monotonic_ns())).write_text("x")
"""


def gone(pid: int) -> bool:
    return not started(pid)


@pytest.mark.parametrize("seed", range(4))
def test_kill_minus_nine_at_any_moment_leaves_no_process_and_no_folder(tmp_path: Path, seed: int) -> None:
    servers.find("newest-valkey")
    folder, ran = tmp_path / "files", tmp_path / "ran"
    keeper = subprocess.Popen([sys.executable, "-c", KEEPER, str(folder), str(ran)], stdout=subprocess.PIPE, text=True)
    assert keeper.stdout is not None
    pids = [int(keeper.stdout.readline())]
    moment = random.Random(seed).random() * 0.6 if seed else None  # the first time when all run and write
    if moment is None:
        pids += [int(keeper.stdout.readline()) for _ in range(3)]
        assert keeper.stdout.readline() == "up\n"
    else:
        time.sleep(moment)
    keeper.kill()
    killed = time.monotonic()
    rest = keeper.communicate()[0].split()
    pids += [int(word) for word in rest if word.isdecimal()]
    until(lambda: all(map(gone, pids)) and not folder.exists(), "processes and folder gone")
    assert time.monotonic() - killed < 10
    assert ran.exists()


def test_a_dismissed_janitor_leaves_everything_as_it_is(tmp_path: Path) -> None:
    with Janitor() as janitor:
        janitor.remove(tmp_path)
        janitor.end(os.getpid())
    assert gone(janitor.pid)
    assert tmp_path.exists()


def test_ctrl_c_and_hang_up_do_not_reach_the_janitor(tmp_path: Path) -> None:
    def ignores_both() -> bool:
        ignored = next(line for line in Path(f"/proc/{janitor.pid}/status").read_text().splitlines() if line.startswith("SigIgn"))
        return int(ignored.split()[1], 16) & 3 == 3  # bits of SIGHUP and SIGINT

    with Janitor() as janitor:
        assert os.getpgid(janitor.pid) != os.getpgid(0)
        until(ignores_both, "both signals ignored")
        janitor.remove(tmp_path)
        os.kill(janitor.pid, signal.SIGINT)
        os.kill(janitor.pid, signal.SIGHUP)
        assert not gone(janitor.pid)
    assert tmp_path.exists()


def test_a_process_that_only_has_the_same_number_is_not_ended(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        folder = tmp_path / "sign"
        folder.mkdir()
        code = (
            "import sys; from pathlib import Path; from valkeep.runtime.janitor import Janitor; janitor = Janitor();"
            f"janitor._tell('process', [{bystander.pid}, 'another time']); janitor.remove(Path({str(folder)!r})); print('told')"
        )
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        until(lambda: not folder.exists(), "the folder gone")
        assert bystander.poll() is None
    finally:
        bystander.send_signal(signal.SIGKILL)
        bystander.wait()
