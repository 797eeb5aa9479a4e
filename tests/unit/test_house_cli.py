"""The command line's frame: what is said when something goes wrong, and with which exit code."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from valkeep import cli
from valkeep.cli.output import write_json
from valkeep.errors import ConnectionLost, ExitCode, Refused, ValkeepError


@pytest.fixture(autouse=True)
def keep_signal_handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Registers a function as ``valkeep probe``."""

    def register(function: Callable[[], object]) -> None:
        app = typer.Typer(add_completion=False)
        app.command()(function)
        module = types.ModuleType("valkeep_probe_command")
        module.app = app  # type: ignore[attr-defined]
        module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.COMMANDS, "probe", cli.Entry(module.__name__, "a probe"))

    return register


def valkeep(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "valkeep", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


def test_bare_valkeep_prints_at_most_four_lines_each_with_a_command_of_this_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) is ExitCode.GOOD
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 4
    for line in lines:
        word = line.split()[1]
        assert word == "--help" or word in cli.commands()


def test_help_lists_every_command_and_imports_none_of_them() -> None:
    done = valkeep("--help")
    assert done.returncode == 0
    for name in cli.commands():
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE)
    listed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\nfrom valkeep import cli\ncli.run(['--help'])\nprint([m for m in ('typer', 'rich', 'asyncio') if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.splitlines()[-1] == "[]"


def test_an_unknown_command_is_a_usage_error_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["versoin"]) is ExitCode.USAGE
    assert "did you mean 'valkeep version'?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["version", "--nonsense"], ["version", "extra"], ["servers", "nonsense"]])
def test_a_wrong_option_or_argument_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) is ExitCode.USAGE
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "changed"),
    [
        (Refused("a module value", remedy="leave it behind", code="VK-MODULE"), ExitCode.NOT_RUN, "nothing"),
        (ConnectionLost("the promotion's reply was lost", remedy="ask ROLE", definite=False), ExitCode.UNCERTAIN, "uncertain"),
    ],
)
def test_an_error_says_what_happened_the_remedy_and_whether_anything_changed(
    command: Callable, capsys: pytest.CaptureFixture[str], error: ValkeepError, code: ExitCode, changed: str
) -> None:
    def probe() -> None:
        raise error

    command(probe)
    assert cli.run(["probe"]) is code
    err = capsys.readouterr().err
    assert error.message in err
    assert f"remedy:   {error.remedy}" in err
    assert f"changed:  {changed}" in err
    assert error.code in err


@pytest.mark.parametrize("code", list(ExitCode))
def test_a_commands_exit_code_is_the_programs(command: Callable, code: ExitCode) -> None:
    command(lambda: code)
    assert cli.run(["probe"]) is code

    def leave() -> None:
        raise typer.Exit(int(code))

    command(leave)
    assert cli.run(["probe"]) is code


def test_a_bug_is_called_one_and_leaves_the_state_uncertain(command: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    def probe() -> None:
        raise ZeroDivisionError("one by none")

    command(probe)
    assert cli.run(["probe"]) is ExitCode.UNCERTAIN
    err = capsys.readouterr().err
    assert "unexpected ZeroDivisionError: one by none" in err
    assert "bug of Valkeep" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_an_asynchronous_job_clean_up_and_gives_its_exit_code(number: signal.Signals, code: int) -> None:
    script = """
import asyncio, sys, types, typer
from valkeep import cli
async def job():
    print("running", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        print("cleaned up", flush=True)
app = typer.Typer()
@app.command()
def probe() -> None:
    asyncio.run(job())
module = types.ModuleType("probe_module"); module.app = app; module.__spec__ = types.SimpleNamespace()
sys.modules["probe_module"] = module
cli.COMMANDS["probe"] = cli.Entry("probe_module", "")
cli.main(["probe"])
"""
    running = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "running\n"
    running.send_signal(number)
    out, err = running.communicate(timeout=30)
    assert out == "cleaned up\n"
    assert "Traceback" not in err
    assert running.returncode == code


def test_json_on_stdout_is_one_value_with_its_schema_and_nothing_else() -> None:
    done = valkeep("version", "--json", "-")
    value = json.loads(done.stdout)
    assert next(iter(value)) == "schema"
    assert value["schema"] == 1
    assert value["wire"] in done.stderr


def test_json_into_a_file_appears_whole_and_a_bad_path_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["version", "--json", str(tmp_path / "deep" / "v.json")]) is ExitCode.GOOD
    assert json.loads((tmp_path / "deep" / "v.json").read_text())["schema"] == 1
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["v.json"]
    (tmp_path / "file").write_text("")
    assert cli.run(["version", "--json", str(tmp_path / "file" / "v.json")]) is ExitCode.NOT_RUN
    assert "remedy" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_place_that_cannot_be_written_is_said_before_the_work_begins(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.run(["rehearse", option, str(tmp_path / "file" / "out")]) is ExitCode.NOT_RUN
    assert cli.run(["rehearse", option, str(tmp_path)]) is ExitCode.USAGE
    said = capsys.readouterr()
    assert "cannot be written" in said.err
    assert "is a folder" in said.err
    assert "start:" not in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_in_a_folder_that_may_not_be_looked_into_is_said_before_the_work_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = tmp_path / "closed" / "out"

    def denied(path: Path) -> bool:  # root may look everywhere, so the kernel's answer is given by hand
        if path == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return os.path.isdir(path)  # noqa: PTH112

    monkeypatch.setattr(Path, "is_dir", denied)
    assert cli.run(["version", "--json", str(closed)]) is ExitCode.NOT_RUN
    assert "cannot be written: Permission denied" in capsys.readouterr().err


def test_a_result_that_cannot_be_written_after_the_work_says_what_the_work_has_changed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValkeepError) as late:
        write_json({}, str(tmp_path / "file" / "x.json"), changed="the target was promoted")
    assert (late.value.definite, late.value.exit_code, late.value.changed) == (False, ExitCode.UNCERTAIN, "the target was promoted")
    with pytest.raises(ValkeepError) as early:
        write_json({}, str(tmp_path / "file" / "x.json"))
    assert early.value.exit_code is ExitCode.NOT_RUN


def test_a_migration_needs_a_state_folder_and_an_address_that_the_target_can_connect_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    there = ["migrate", "run", "--source", "redis://127.0.0.1:1", "--target", "redis://127.0.0.1:2"]
    assert cli.run([*there, "--state", str(tmp_path / "file" / "state")]) is ExitCode.NOT_RUN
    assert "[VK-STATE-WRITE]" in capsys.readouterr().err
    assert cli.run([*there, "--listen", "0.0.0.0:6400"]) is ExitCode.USAGE
    assert "--announce" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [("--deliver", "push", "--listen", "127.0.0.1:0"), ("--deliver", "push", "--promote-within", "60"), ("--promote-within", "5")],
)
def test_an_option_that_would_be_ignored_is_refused(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    there = ["migrate", "run", "--source", "redis://127.0.0.1:1", "--target", "redis://127.0.0.1:2"]
    assert cli.run([*there, *options]) is ExitCode.USAGE
    said = capsys.readouterr().err
    assert "means nothing" in said
    assert "leave it out" in said


def test_a_device_is_written_to_and_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert cli.run(["version", "--json", str(tmp_path / "pipe")]) is ExitCode.GOOD
        assert json.loads(os.read(reader, 1 << 16))["schema"] == 1
        assert (tmp_path / "pipe").is_fifo()
    finally:
        os.close(reader)


def test_a_terminal_that_knows_only_ascii_is_no_error() -> None:
    script = """
import sys, types, typer
from valkeep import cli
from valkeep.cli.output import console
app = typer.Typer()
@app.command()
def probe() -> None:
    console().print("Redis → Valkey")
module = types.ModuleType("probe_module"); module.app = app; module.__spec__ = types.SimpleNamespace()
sys.modules["probe_module"] = module
cli.COMMANDS["probe"] = cli.Entry("probe_module", "")
cli.main(["probe"])
"""
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ascii_only, check=False)
    assert (done.returncode, done.stdout) == (0, "Redis \\u2192 Valkey\n"), done.stderr


def test_a_verdict_keeps_its_exit_code_when_nobody_reads_its_json() -> None:
    script = """
import sys, types, typer
from valkeep import cli
from valkeep.cli.output import console, write_json
from valkeep.errors import ExitCode
app = typer.Typer()
@app.command()
def probe() -> ExitCode:
    write_json({"long": "x" * 1000000}, "-")
    console().print("more " * 100000)
    return ExitCode.JUDGED_BAD
module = types.ModuleType("probe_module"); module.app = app; module.__spec__ = types.SimpleNamespace()
sys.modules["probe_module"] = module
cli.COMMANDS["probe"] = cli.Entry("probe_module", "")
cli.main(["probe"])
"""
    running = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    said = running.stderr.read()
    assert running.wait(60) == ExitCode.JUDGED_BAD, said
    assert said == ""
    running.stderr.close()


def test_a_job_goes_on_when_nobody_reads_its_progress_any_more() -> None:
    script = """
import sys, time
from valkeep import cli
from valkeep.report.events import Phase
from valkeep.report.terminal import watch
with watch() as emit:
    for step in range(200):
        emit(Phase(float(step), f"step {step}" * 100))
cli.main(["version"])
"""
    done = subprocess.run(
        f"{{ {sys.executable} -c '{script}' 2>&1 >&3 | head -n 1; exit ${{PIPESTATUS[0]}}; }} 3>&1",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "valkeep" in done.stdout


def test_a_closed_terminal_ends_a_job_as_sigterm_does_unless_it_runs_under_nohup(command: Callable[[Callable[[], object]], None]) -> None:
    def hang_up() -> None:
        signal.raise_signal(signal.SIGHUP)

    before = signal.getsignal(signal.SIGHUP)
    try:
        command(hang_up)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert cli.run(["probe"]) is ExitCode.TERMINATED
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert cli.run(["probe"]) is ExitCode.GOOD
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m valkeep doctor | head -n 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_doctor_says_for_everything_absent_what_that_disables_and_a_remedy() -> None:
    done = valkeep("doctor", "--json", "-", VALKEEP_CACHE="/nonexistent/cache", VALKEEP_SERVERS="")
    findings = json.loads(done.stdout)["findings"]
    names = {one["name"] for one in findings}
    assert {"compiled wire", "server redis-8.0", "Java", "Docker", "namespaces", "sync watch"} <= names
    for one in findings:
        if not one["found"]:
            assert one["disables"], one
            assert one["remedy"], one
    assert done.returncode in (0, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="process titles are read from /proc")
@pytest.mark.parametrize("secret", ["s3cret", "p%40ss", "with@at/and:more", "한글"])
def test_a_password_in_a_url_does_not_stay_in_the_process_title_and_still_arrives(secret: str) -> None:
    script = """
import sys, types, typer
from valkeep import cli
app = typer.Typer()
@app.command()
def probe(source: str = "", after: str = "") -> None:
    print(source, after, flush=True)
    sys.stdin.read()
module = types.ModuleType("probe_module"); module.app = app; module.__spec__ = types.SimpleNamespace()
sys.modules["probe_module"] = module
cli.COMMANDS["probe"] = cli.Entry("probe_module", "")
cli.main()
"""
    url = f"redis://user:{secret}@127.0.0.1:6379/0"
    running = subprocess.Popen(
        [sys.executable, "-c", script, "probe", "--source", url, "--after", "untouched"],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == f"{url} untouched\n"
    title = Path(f"/proc/{running.pid}/cmdline").read_bytes().split(b"\0")
    running.communicate()
    assert secret.encode() not in b" ".join(title)
    assert b"redis://user:" + b"*" * len(secret.encode()) + b"@127.0.0.1:6379/0" in title
    assert b"untouched" in title


@pytest.mark.parametrize("command", ["preflight", "run", "verify"])
def test_a_url_that_names_one_database_of_a_move_is_refused_without_its_password(command: str) -> None:
    said = valkeep("migrate", command, "--source", "redis://:hidden@127.0.0.1:1/3", "--target", "valkey://127.0.0.1:2")
    assert said.returncode == ExitCode.USAGE
    assert "names database 3" in said.stderr
    assert "leave /3 out" in said.stderr
    assert "hidden" not in said.stdout + said.stderr
