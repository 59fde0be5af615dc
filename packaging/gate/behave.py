"""`python behave.py PROGRAM [--idle SECONDS] [--requests N]`: what a release does when it runs, and whether a gateway needs it.

The program serves a stand-in for a provider, in a network of its own where nothing else can be reached, traced by strace: first
nobody asks it for anything, then N requests come, then it is told to stop. What it executes, connects to, binds and opens for
writing is compared with a short list; its time on the CPU while idle, its children and its memory with bounds. Linux, strace,
and user namespaces or root. Exits with 1 and a line for each fault, with 2 when it cannot be tried here.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

IDLE_MOST = 0.02
"""Share of a processor that an idle server may take."""

MEMORY_MOST = 200
"""MB resident after the requests; it has 50 to 70."""

CALLS = (
    "execve,execveat,connect,bind,sendto,openat,open,creat,memfd_create,ptrace,process_vm_writev,process_vm_readv,bpf,unlinkat,"
    "renameat2,symlinkat,linkat,chmod,fchmodat,kill,tgkill,io_uring_setup,userfaultfd,init_module,finit_module,mount,setns"
)
NEVER = frozenset(
    (
        *("execveat", "memfd_create", "ptrace", "process_vm_writev", "process_vm_readv", "bpf", "userfaultfd", "init_module"),
        *("finit_module", "mount", "setns", "symlinkat"),
    )
)
"""System calls that a gateway has no use for."""

QUIET = {"UV_USE_IO_URING": "0"}
"""So that the event loop opens one ring (libuv's, for epoll_ctl alone) and not two. What goes through a ring is no system call,
so another one is a fault."""

LINE = re.compile(r"^(\d+) +([a-z0-9_]+)\((.*)$")
SECRET = "sk-" + "gate" * 10

ANSWER = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()
ASK = json.dumps({"model": "mock/m", "messages": [{"role": "user", "content": "hello"}]}).encode()


class Provider(http.server.BaseHTTPRequestHandler):
    """Answers everything with the same, and remembers what it was sent."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, int]] = []  # noqa: RUF012 - one for all on purpose

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.seen.append((self.path, self.headers.get("authorization", ""), len(body)))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("authorization", ""), 0))
        self.send_error(404)

    def log_message(self, *_: object) -> None: ...


def inside(program: Path, work: Path, idle: float, requests: int) -> list[str]:
    """In the network of its own: the trial itself. Returns the faults."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    provider = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=provider.serve_forever, daemon=True).start()
    port = provider.server_address[1]
    home = work / "home"
    home.mkdir()
    config = home / "config.toml"
    config.write_text(
        f'[server]\nport = 0\nself_check = 0.0\nintegrity = "off"\n[admin]\nport = 0\n[auth]\nrequired = false\n'
        f'[providers.mock]\nkind = "openai"\nbase_url = "http://127.0.0.1:{port}/v1"\nkeys = ["env:GATE_KEY"]\nmodels = ["m"]\n'
    )
    config.chmod(0o600)
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "GATE_KEY": SECRET, "TMPDIR": str(home)} | QUIET
    subprocess.run([program, "--version"], env=environment, check=True, capture_output=True, timeout=120)  # unpacks
    trace = work / "trace"
    command = ["strace", "-f", "-qq", "-s", "200", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(trace)]
    command += [str(program), "serve", "--config", str(config)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True) as traced:
        try:
            lines = iter(traced.stderr or ())
            talk: list[str] = []
            said = next((line for line in lines if talk.append(line) or "listening on" in line), "")  # type: ignore[func-returns-value]
            if not said:
                return [f"it does not start: {' '.join(talk)[-300:]}"]
            threading.Thread(target=lambda: [None for _ in lines], daemon=True).start()
            base = said.strip().rpartition(" ")[2]
            (pid,) = children(traced.pid)
            found = list(_watched(pid, base, idle, requests))
        finally:
            try:
                os.killpg(traced.pid, signal.SIGTERM)
                traced.wait(60)
            except ProcessLookupError:
                traced.wait()
            except subprocess.TimeoutExpired:
                os.killpg(traced.pid, signal.SIGKILL)
    found += traced_faults(trace.read_text("utf-8", "replace").splitlines(), program, home, port)
    found += _provider_faults(requests)
    return found


def _watched(pid: int, base: str, idle: float, requests: int) -> Iterator[str]:
    time.sleep(2)  # the start is over
    before = ticks(pid)
    time.sleep(idle)
    share = (ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / idle
    if share > IDLE_MOST:
        yield f"it works while nobody asks: {share:.1%} of a processor over {idle:g} s"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(_: int) -> int:
        request = urllib.request.Request(f"{base}/v1/chat/completions", ASK, {"content-type": "application/json"})
        with opener.open(request, timeout=60) as answer:
            return int(answer.status)

    with ThreadPoolExecutor(8) as pool:
        good = sum(status == 200 for status in pool.map(ask, range(requests)))
    if good != requests:
        yield f"only {good} of {requests} requests were answered"
    if started := children(pid):
        yield f"it has children: {', '.join(Path(f'/proc/{one}/comm').read_text().strip() for one in started)}"
    status = Path(f"/proc/{pid}/status").read_text()
    memory = int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) // 1024
    if memory > MEMORY_MOST:
        yield f"it has {memory} MB in memory, more than {MEMORY_MOST}"
    time.sleep(1)


def _provider_faults(requests: int) -> Iterator[str]:
    """What came to the provider is what callers asked for, and nothing else."""
    others = [path for path, _, _ in Provider.seen if path not in ("/v1/chat/completions", "/v1/models")]
    if others:
        yield f"the provider was asked for what no caller wanted: {', '.join(sorted(set(others))[:3])}"
    asked = [one for one in Provider.seen if one[0] == "/v1/chat/completions"]
    if len(asked) != requests:
        yield f"{len(asked)} requests came to the provider for {requests} of callers"
    if {one[2] for one in asked} - {len(ASK), len(ASK) - len("mock/")}:
        yield "a request grew on its way to the provider"
    if any(one[1] != f"Bearer {SECRET}" for one in asked):
        yield "a request reached the provider without its key"


def children(pid: int) -> list[int]:
    """Of a process."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ticks(pid: int) -> int:
    """Clock ticks on the CPU, its own and its children's."""
    total = 0
    for one in (pid, *children(pid)):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total


def traced_faults(lines: list[str], program: Path, home: Path, provider: int) -> Iterator[str]:
    """What is not on the list, in a trace of strace."""
    seen: set[str] = set()
    rings = sum(" io_uring_setup(" in line for line in lines)
    if rings > 1:
        yield f"it opens {rings} rings of io_uring: the event loop has one"
    for line in lines:
        match = LINE.match(line)
        if match is None or "resumed>" in line[:60]:
            continue
        fault = _call(match[2], match[3], program, home, provider)
        if fault and fault not in seen:
            seen.add(fault)
            yield fault


def _call(name: str, said: str, program: Path, home: Path, provider: int) -> str:
    failed = re.search(r"= -1 E[A-Z]+", said) is not None
    path = (re.findall(r'"((?:[^"\\]|\\.)*)"', said) or [""])[0]
    if name in NEVER:
        return f"it calls {name}({said[:80]}"
    if name == "execve":
        good = path == str(program) or path.startswith(f"{home}/.local/share/aigw/rt/")
        return "" if good else f"it executes {path}"
    if name in ("connect", "sendto"):
        port = re.search(r"sin6?_port=htons\((\d+)\)", said)
        if port is None:
            local = re.search(r'sun_path=@?"([^"]*)"', said)
            good = local is None or str(home) in local[1] or "control.sock" in local[1] or "/nscd/" in local[1]
            return "" if good else f"it connects to {local[1] if local else '?'}"
        address = re.search(r'(?:inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"', said)
        where = f"{address[1] if address else '?'}:{port[1]}"
        return "" if where == f"127.0.0.1:{provider}" else f"it connects to {where}"
    if name == "bind":
        address = re.search(r'"([^"]+)"', said)
        good = "AF_UNIX" in said or "AF_NETLINK" in said or (address is not None and address[1] in ("127.0.0.1", "::1"))
        return "" if good else f"it listens at {said[:100]}"
    if name in ("openat", "open", "creat"):
        writes = re.search(r"O_(?:WRONLY|RDWR|CREAT|TRUNC)", said) is not None or name == "creat"
        good = path.startswith((f"{home}/", "/dev/null", "/dev/tty", "/proc/self/")) or not path.startswith("/")
        if writes and not good and not failed:
            return f"it writes to {path}"
        reads = re.search(
            r"\.ssh/|/\.aws/|/\.kube/|/etc/shadow|/\.config/gcloud|/\.netrc|/\.git-credentials|id_(?:rsa|ed25519)", path
        )
        return f"it looks for {path}" if reads else ""
    if name in ("kill", "tgkill"):
        return ""
    outside = name in ("unlinkat", "renameat2", "linkat", "chmod", "fchmodat") and path.startswith("/")
    return f"it changes {path}" if outside and not path.startswith(f"{home}/") and not failed else ""


def main(arguments: list[str]) -> int:
    """Try *program*; print faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    said = parser.parse_args(arguments)
    program = said.program.resolve()
    if said.inside:
        found = inside(program, said.inside, said.idle, said.requests)
        for one in found:
            print(one, file=sys.stderr)
        return bool(found)
    if sys.platform != "linux" or shutil.which("strace") is None or shutil.which("ip") is None:
        print("behave: it takes Linux with strace and iproute2", file=sys.stderr)
        return 2
    alone = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        print("behave: no network of its own can be made here (unshare)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="aigw-gate.") as work:
        again = [sys.executable, __file__, str(program), "--idle", str(said.idle), "--requests", str(said.requests)]
        code = subprocess.run([*alone, *again, "--inside", work], check=False).returncode
    if not code:
        print(f"behave: {said.idle:g} s idle and {said.requests} requests: nothing that a gateway does not need")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
