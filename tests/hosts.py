"""Hosts on one machine: Linux namespaces with a wire between them, a real sshd in each, gone when the test is."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("unshare", "nsenter", "setpriv", "ip", "sshd", "ssh", "ssh-keygen", "rsync")
NETWORK = "10.213.77"
START_S = 20.0

HOME = "/mnt/host/home"
VENV = Path(sys.prefix).resolve()

# As a host's first process: /mnt keeps hold of what its own /tmp hides, root's home is the host's, and bash stays to
# reap orphans.
# $1 folder of the host, $2 folder that all hosts share, $3 the Python environment, $4 a repository or nothing
BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs none /mnt; mkdir /mnt/raylora /mnt/venv /mnt/repository /mnt/host
mount --bind "$1" /mnt/host; mount --bind "$2" /mnt/raylora
mount --bind "$3" /mnt/venv; mount -o remount,bind,ro /mnt/venv
if [ -n "$4" ]; then mount --bind "$4" /mnt/repository; mount -o remount,bind,ro /mnt/repository; fi
sed 's#:/root:#:/mnt/host/home:#' /etc/passwd > /mnt/host/passwd; mount --bind /mnt/host/passwd /etc/passwd
mount --bind /mnt/host/tmp /tmp
mount -t tmpfs none /run; mkdir /run/sshd; mount -t tmpfs none /dev/shm
mkdir -p "$3"; mount --bind /mnt/venv "$3"
if [ -n "$4" ]; then mkdir -p "$4"; mount --bind /mnt/repository "$4"; fi
ip link set lo up
"$(command -v sshd)" -D -e -f /mnt/host/sshd_config 2>/mnt/host/sshd.log &
touch /mnt/host/ready
while true; do sleep 1; done
"""
SSHD = """\
HostKey /mnt/host/host_key
AuthorizedKeysFile /mnt/host/home/.ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
"""


def missing() -> str | None:
    """Why there can be no hosts here, or None."""
    absent = [tool for tool in TOOLS if not which(tool)]
    if absent:
        return f"no {', '.join(absent)} here (apt-get install openssh-server rsync iproute2)"
    tried = subprocess.run(
        ["unshare", "-n", "-m", "-p", "-u", "-i", "-f", "ip", "link"], capture_output=True, text=True
    )
    return None if tried.returncode == 0 else f"namespaces are refused: {tried.stderr.strip()}"


def which(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass(frozen=True)
class Host:
    """A machine with its own network, processes, name, /tmp, /dev/shm, /run and home."""

    name: str
    ip: str
    folder: Path
    pid: int  # of its first process, as seen from outside

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def command(self, command: str, environ: Mapping[str, str] | None = None) -> list[str]:
        """Runs `command` on the host, in the repository if it has that, in an environment of its own."""
        path = f"{VENV}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        settings = {"HOME": HOME, "PATH": path, "LANG": "C.UTF-8", "TERM": "dumb", **(environ or {})}
        enter = ["nsenter", "-t", str(self.pid), "-n", "-m", "-p", "-u", "-i", "env", "-i"]
        return [*enter, *(f"{name}={value}" for name, value in settings.items()), "bash", "-c", f"cd /; {command}"]

    def run(
        self, command: str, environ: Mapping[str, str] | None = None, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(command, environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )


@contextmanager
def hosts(*names: str, folder: Path, shared: Path) -> Generator[list[Host]]:
    """Hosts on one network of their own, each with `shared` at /mnt/raylora; the first has the repository, too.

    A host takes root's key of every other one. When the block ends, or this process does, so do all their processes,
    and with them the namespaces and wires.
    """
    _keys(folder)
    with ExitStack() as stack:
        started = [
            stack.enter_context(_host(name, f"{NETWORK}.{number}", folder, shared, ROOT if number == 1 else None))
            for number, name in enumerate(names, 1)
        ]
        _wire(started)
        yield started


def _keys(folder: Path) -> None:
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)


@contextmanager
def _host(name: str, ip: str, keys: Path, shared: Path, repository: Path | None) -> Generator[Host]:
    folder = keys / name
    for part in ("tmp", "home/.ssh"):
        (folder / part).mkdir(parents=True)
    for source, target in (("key", "home/.ssh/id_ed25519"), ("host_key", "host_key")):
        shutil.copy(keys / source, folder / target)
    shutil.copy(keys / "key.pub", folder / "home/.ssh/authorized_keys")
    (folder / "sshd_config").write_text(SSHD)
    boot = f"hostname {name}\n{BOOT}"
    words = [boot, name, str(folder), str(shared), str(VENV), str(repository or "")]
    new = ["unshare", "-n", "-m", "-p", "-u", "-i", "-f", "--kill-child", "--mount-proc", "bash", "-c", *words]
    with (folder / "boot.log").open("w") as log:
        # the host ends even if this process is killed
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *new], stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_for(folder / "ready", process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield Host(name, ip, folder, int(children[0]))
    finally:
        process.kill()
        process.wait()


def _wait_for(ready: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{ready.parent.name} did not start:\n{(ready.parent / 'boot.log').read_text()}")
        time.sleep(0.05)


def _wire(machines: list[Host]) -> None:
    """One bridge, in the first host, with a wire to every other."""
    first, *others = machines
    _enter(first, f"ip link add bridge type bridge && ip addr add {first.ip}/24 dev bridge && ip link set bridge up")
    for host in others:
        port = f"to-{host.ip.rpartition('.')[2]}"
        _enter(first, f"ip link add {port} type veth peer name eth0 netns {host.pid}")
        _enter(first, f"ip link set {port} master bridge up")
        _enter(host, f"ip addr add {host.ip}/24 dev eth0 && ip link set eth0 up && ip route add default dev eth0")


def _enter(host: Host, command: str) -> None:
    """In the host's network alone, so that process ids are those seen from outside."""
    result = subprocess.run(["nsenter", "-t", str(host.pid), "-n", "sh", "-c", command], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{host.name}: {shlex.quote(command)}: {result.stderr}")
