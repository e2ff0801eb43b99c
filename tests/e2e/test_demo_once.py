"""The demo as a user runs it: the tour comes out as it should, a changed policy is noticed, and nothing is left behind.

Each test starts `remora demo` in a process of its own, in an empty directory, with a TMPDIR of its own: by that word in
their environment all processes of one demo are found, whoever their parent is by then.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(150)
"""A tour takes half a minute; a machine that is busy with something else may take longer."""

ROOT = Path(__file__).parents[2]
OUTCOMES = (
    "ALLOWED",
    "DENIED BY IDENTITY",
    "DENIED BY DEFAULT",
    "DENIED BY ROUTE",
    "DENIED ON TCP",
    "DENIED, NO IDENTITY",
    "ROTATED IN TRAFFIC",
    "CUT BY AN EDIT",
    "DENIED BY THE EDIT",
    "ALLOWED AGAIN",
    "CUT BY A REVOCATION",
    "REFUSED, REVOKED",
    "ENROLLED AGAIN",
)
SAW = (
    "saw 200 OK",
    "saw 403 Forbidden  RBAC: access denied",
    "saw 502 Bad Gateway",
    "saw hung up, no answer",
    "saw TLS alert certificate_required",
    "saw TLS alert unknown_ca",
    "saw its open connection closed",
)
REASONS = (
    "denied_by_policy:",
    "denied_by_default:",
    "not_tls:",
    "certificate_required:",
    "issuer_unknown:",
    "certificate_revoked:",
    "identity_revoked:",
)
PROCESSES = 9
"""The demo itself, the authority, three applications, three sidecars, batch."""
STAYS = "Ctrl-C ends the mesh."


class Demo:
    """How to run the demo in `home`, and what is left of it."""

    remora = (sys.executable, "-m", "remora")

    def __init__(self, home: Path) -> None:
        self.work, self.temporary = home / "work", home / "temporary"
        self.work.mkdir()
        self.temporary.mkdir()
        names = ("NO_COLOR", "COLUMNS")
        self.environment = {name: value for name, value in os.environ.items() if name not in names} | {
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.temporary),
        }

    def command(self, *words: str) -> list[str]:
        return [*self.remora, "demo", *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )

    @contextmanager
    def staying(self, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """Start it so that it stays; give the process and what it wrote until then."""
        child = subprocess.Popen(
            self.command(*words), cwd=self.work, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        try:
            seen = ""
            while STAYS not in seen:
                line = child.stdout.readline()
                assert line, f"it ended before it stayed:\n{seen}"
                seen += line
            yield child, seen
        finally:
            child.kill()
            child.wait()
            child.stdout.close()

    def processes(self) -> list[str]:
        """Name the processes that were started with this TMPDIR."""
        word = f"TMPDIR={self.temporary}".encode()
        found = []
        for process in Path("/proc").iterdir():
            if not process.name.isdecimal():
                continue
            try:
                if word in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue  # it ended meanwhile
        return found

    def processes_in_the_end(self, seconds: float = 5.0) -> list[str]:
        """Look until no process is left, or the time is over."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    return Demo(tmp_path)


def until_answered(url: str, answered: bool, seconds: float = 120.0) -> None:
    """Ask until there is an answer, or none: a sidecar that was refused asks again after a growing while."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url).close()
        except urllib.error.HTTPError as refused:
            refused.close()
            seen = False
        else:
            seen = True
        if seen is answered:
            return
        assert time.monotonic() < deadline, f"after {seconds:g} s, answered: {seen}"
        time.sleep(0.1)


def web_port(text: str) -> int:
    found = re.search(r"curl http://127\.0\.0\.1:(\d+)/orders/7", text)
    assert found, text
    return int(found[1])


def assert_rotated(text: str) -> None:
    """Check what is shown of the rotation: who was waited for, and that one root took the place of the other."""
    before, after = re.findall(r"root ([0-9a-f]{12}) → ([0-9a-f]{12}) ", text)[0]
    assert before != after
    standings = [line.partition(" + ")[0] for line in text.split(" + ")[1:]]
    assert len(standings) == 3
    assert "bundle sequence 2 with 2 roots; intermediate" in standings[0]
    assert f"root {after} is published; it waits 3 s for refreshes" in standings[0]
    everybody = ", ".join(f"ns/shop/sa/{name}" for name in ("batch", "ledger", "orders", "web"))
    assert f"4 sidecars have not confirmed sequence 2: {everybody}" in standings[0]
    assert f"signs under root {after}" in standings[1]
    assert f"root {before} leaves the bundle in" in standings[1]
    assert "bundle sequence 3 with 1 root;" in standings[2]
    issued = re.findall(r"issued \d+ certificates .*: web (\d+), orders (\d+), ledger (\d+), batch (\d+)", text)
    assert min(map(int, issued[0])) >= 1, "each renewed by itself"


def test_once_shows_every_outcome_and_leaves_nothing(demo: Demo) -> None:
    done = demo.run("--once")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    text = done.stdout
    assert [outcome for outcome in OUTCOMES if outcome not in text] == []
    assert [saw for saw in SAW if saw not in text] == []
    assert [reason for reason in REASONS if reason not in text] == []
    for name in ("web", "orders", "ledger"):
        assert f"/ns/shop/sa/{name}" in text
        assert f"{name}/access.log" in text
    assert "ns/shop/sa/orders → ns/shop/sa/ledger  TCP" in text
    assert "All 16 came out as they should: 3 allowed, 12 denied, the root and every certificate rotated." in text
    audit = " ".join(text.partition("audit.log ")[2].partition("\n\n")[0].split())
    assert json.loads(audit)["identity"] == "spiffe://cluster.local/ns/shop/sa/orders"
    assert_rotated(" ".join(text.partition("ROTATED IN TRAFFIC")[2].partition("\n\n")[0].split()))
    assert int(re.findall(r"(\d+) through web, orders and the ledger: 0 failed, 0 sent twice", text)[0]) >= 100
    serials = re.findall(r"(?:web|orders|ledger) ([0-9a-f]{6})… → ([0-9a-f]{6})…", " ".join(text.split()))
    assert len({serial for pair in serials for serial in pair}) == 6, "three before and three others after"
    assert "    FAULT  " not in text
    assert "\x1b" not in text, "colours are for terminals"
    assert STAYS not in text
    assert demo.processes() == []
    assert list(demo.temporary.iterdir()) == []
    assert list(demo.work.iterdir()) == []


def test_a_changed_policy_makes_it_fail_by_name(demo: Demo) -> None:
    """The ledger lets web in: the sixth step must say so, and the exit code with it. All others come out as ever."""
    mesh = demo.work / "my mesh"
    prepared = (
        "import sys; from pathlib import Path; from demo.layout import Layout; from demo.prepare import prepare; "
    )
    code = prepared + "prepare(Layout(directory=Path(sys.argv[1]), base=21000))"
    subprocess.run([sys.executable, "-c", code, str(mesh)], env=demo.environment, check=True)
    policy = mesh / "policies" / "ledger.yaml"
    policy.write_text(policy.read_text().replace('shop/sa/orders"]', 'shop/sa/*"]'))

    done = demo.run("--once", "--directory", "my mesh")

    assert (done.returncode, done.stderr) == (1, "")
    text = done.stdout
    assert "are yours" in text
    assert "did not come out as they should: 6." in text
    step = text.partition(" 6  DENIED ON TCP")[2].partition(" 7  ")[0]
    assert "FAULT     the caller saw '200 OK', and should have seen '502 Bad Gateway'" in step
    assert "FAULT     not on record: ledger says deny (denied_by_policy)" in step
    assert text.count("    FAULT  ") == 3
    logs = text.partition("did not come out")[2]
    assert re.search(r"ledger/sidecar\.log\n(?: .*\n)* .* certificates generation \d+ in force: ", logs), logs
    assert demo.processes() == []
    records = [json.loads(line) for line in (mesh / "ledger" / "access.log").read_text().splitlines()]
    denied = {record["policy"] for record in records if record["decision"] == "deny"}
    assert denied == {"ns[shop]-policy[ledger-shut]-rule[0]"}, "the files are kept, since the directory was named"
    assert "ledger-shut.yaml" not in {path.name for path in (mesh / "policies").iterdir()}
    keys = [path for path in mesh.rglob("*.key") if not path.is_symlink()]
    assert [path.stat().st_mode & 0o077 for path in keys] == [0] * len(keys)
    assert {path.relative_to(mesh).parts[0] for path in keys} == {"authority", "batch", "stranger"}, "no sidecar's"


def test_a_broken_policy_keeps_it_from_starting_and_is_said(demo: Demo) -> None:
    mesh = demo.work / "mesh"
    (mesh / "policies").mkdir(parents=True)
    (mesh / "made-by-remora-demo.txt").touch()
    (mesh / "policies" / "mine.yaml").write_text("kind: AuthorizationPolicy\n")
    done = demo.run("--once", "--directory", "mesh")
    assert done.returncode == 1
    assert re.search(r"^remora demo: the sidecar of \w+ is not ready:\n    policy: .*mine\.yaml", done.stderr), (
        done.stderr
    )
    assert "Traceback" not in done.stderr
    assert demo.processes() == []


def test_a_directory_of_something_else_is_refused(demo: Demo) -> None:
    (demo.work / "thesis.txt").write_text("years of work")
    done = demo.run("--directory", ".")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not empty and not of the demo; name a new directory" in done.stderr
    assert [path.name for path in demo.work.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("number", "words"), [(signal.SIGINT, []), (signal.SIGTERM, ["--no-tour"])])
def test_it_stays_shows_what_happens_and_ends_in_order(demo: Demo, number: signal.Signals, words: list[str]) -> None:
    with demo.staying(*words) as (child, text):
        assert ("The tour" in text) == (not words)
        assert child.stdout is not None
        processes = demo.processes()
        assert len(processes) == PROCESSES
        assert any(" authority serve " in line and " --lifetime 2m " in line for line in processes)
        page = re.search(r"pages +(http://127\.0\.0\.1:\d+/)", text)
        assert page, text
        with urllib.request.urlopen(page[1]) as answer:
            assert "shop/web" in answer.read().decode()
        base = f"http://127.0.0.1:{web_port(text)}"
        with urllib.request.urlopen(f"{base}/orders/8") as answer:
            assert json.load(answer)["item"] == "two scones"
        with pytest.raises(urllib.error.HTTPError) as denied:
            urllib.request.urlopen(f"{base}/admin/keys")
        denied.value.close()
        assert denied.value.code == 403
        shown = ""
        while "GET /admin/keys → 403" not in shown:
            line = child.stdout.readline()
            assert line, shown
            shown += line
        assert re.search(r"allow +ns/shop/sa/web → ns/shop/sa/orders  GET /orders/8 → 200", shown), shown
        child.send_signal(number)
        rest = child.stdout.read()
        assert child.wait(timeout=10) == 0, rest
        assert rest.endswith("ended: no process is left, no file either\n")
    assert demo.processes() == []
    assert list(demo.temporary.iterdir()) == []


def test_an_edited_policy_is_followed_and_a_broken_one_is_told(demo: Demo) -> None:
    with demo.staying("--no-tour", "--directory", "mesh") as (child, text):
        assert child.stdout is not None
        policy = demo.work / "mesh" / "policies" / "ledger.yaml"
        good = policy.read_text()

        def write(content: str) -> None:
            """Rename over it, as editors do; half a write would be a policy of its own."""
            policy.with_suffix(".new").write_text(content)
            policy.with_suffix(".new").replace(policy)

        def until(words: str) -> str:
            assert child.stdout is not None
            shown = ""
            while words not in " ".join(shown.split()):
                line = child.stdout.readline()
                assert line, shown
                shown += line
            return shown

        write(good.replace("sa/orders", "sa/nobody"))
        until("new policy generation 2 in force (web, orders, ledger)")
        with pytest.raises(urllib.error.HTTPError) as denied:
            urllib.request.urlopen(f"http://127.0.0.1:{web_port(text)}/orders/7")
        denied.value.close()
        until("no ALLOW rule allows the connection")
        write(good + "oops: 1\n")
        assert "policies/ledger.yaml:" in until("fault policy rejected, the last valid ones stay in force")
        write(good)
        until("new policy generation 3 in force (web, orders, ledger)")
        with urllib.request.urlopen(f"http://127.0.0.1:{web_port(text)}/orders/7") as answer:
            assert json.load(answer)["amount"] == "4.20 EUR"
        child.send_signal(signal.SIGTERM)
        child.stdout.read()
        assert child.wait(timeout=10) == 0


def test_ended_before_the_tour_is_over_it_leaves_nothing(demo: Demo) -> None:
    child = subprocess.Popen(
        demo.command("--once"), cwd=demo.work, env=demo.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()  # the title: processes are being started
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=15)
    assert (child.returncode, errors) == (130, b"")
    assert demo.processes() == []
    assert list(demo.temporary.iterdir()) == []


def test_a_killed_demo_takes_its_processes_with_it(demo: Demo) -> None:
    with demo.staying("--no-tour") as (child, _):
        assert len(demo.processes()) == PROCESSES
        child.kill()
        child.wait()
        assert demo.processes_in_the_end() == []


@pytest.mark.debian
@pytest.mark.timeout(240)
def test_the_commands_that_it_prints_work_as_they_stand(demo: Demo) -> None:
    """Paste them into a shell, one after the other, with curl."""
    bash, curl = shutil.which("bash"), shutil.which("curl")
    assert bash, "install bash"
    assert curl, "install curl"
    with demo.staying("--no-tour") as (child, text):
        block = text.partition("Try it, in another terminal")[2].partition("\n\n")[0]
        script = re.sub(r" \\\n *", " ", block)
        commands = [line.strip() for line in script.splitlines() if line.strip() and not line.strip().startswith("#")]
        assert len(commands) == 19
        said = {}
        order = f"http://127.0.0.1:{web_port(text)}/orders/7"
        for command in commands[1:]:
            if "DELETE" in command and said:
                time.sleep(1)  # the sidecar looks at its files twice a second
            done = subprocess.run(
                [bash, "-c", f"{commands[0]} && {command}"], env=demo.environment, capture_output=True, text=True,
                timeout=20, check=False,
            )  # fmt: skip
            said[command] = (done.returncode, done.stdout + done.stderr)
            if " revoke " in command:
                until_answered(order, False)
        wanted = [
            (0, "a pot of tea"),
            (0, "HTTP/1.1 403 Forbidden"),
            (0, "two scones"),
            (0, "HTTP/1.1 403 Forbidden"),
            (56, "certificate required"),
            (0, "spiffe://cluster.local/ns/shop/sa/orders"),
            (0, "ready"),
            (0, "remora_requests_total{"),
            (0, '"source_principal"'),
            (0, "spiffe://cluster.local/ns/shop/sa/batch"),
            (0, ""),
            (0, "two scones"),
            (0, "made a root"),
            (0, "bundle sequence 2"),
            (0, "is revoked (unspecified)"),
            (0, "certificates from before stay refused"),
            (0, ""),
            (0, '"event"'),
        ]
        for (command, (code, output)), (wanted_code, words) in zip(said.items(), wanted, strict=True):
            assert code == wanted_code, (command, output)
            assert words in output, (command, output)
        until_answered(order, True)
        child.send_signal(signal.SIGTERM)
        assert child.stdout is not None
        shown = child.stdout.read()
        assert "new   rotation: make a root (authority)" in shown
        assert "fault refused spiffe://cluster.local/ns/shop/sa/orders: " in shown
        assert child.wait(timeout=10) == 0
