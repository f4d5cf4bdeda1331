"""kubectl's streams as a person at a terminal and a script in a pipe see them.

Usage: streams.py KUBECTL PART...   with KUBECONFIG; works with upstream's kubectl too.
"""

import fcntl
import hashlib
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

KUBECTL = sys.argv[1]
NAMESPACE = "e2e-streams"
IMAGE = "busybox:1.37"
# Whatever takes longer hangs.
PATIENCE = 40


def pod(name, command, **more):
    container = {"name": "main", "image": IMAGE, "command": command, **more.pop("container", {})}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container, *more.pop("others", [])], **more}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def sh(script):
    return ["sh", "-c", script]


WEB = "mkdir /w; echo index > /w/index.html; head -c 3000000 /dev/zero > /w/big; httpd -f -p 8080 -h /w"
OBJECTS = [
    pod("shell", ["sleep", "100000"]),
    pod("ticker", sh("while true; do echo tick; sleep 0.2; done")),
    pod("crash", sh("echo crashing; exit 1")),
    pod(
        "pair",
        sh("echo a1; echo a2; echo a3; sleep 100000"),
        others=[{"name": "other", "image": IMAGE, "command": sh("echo b1; sleep 100000")}],
    ),
    pod("web", sh(WEB), container={"ports": [{"name": "http", "containerPort": 8080}]}),
    pod("sink", sh("while true; do nc -l -p 7000 -e sh -c 'head -c 2000000 | md5sum'; done")),
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    },
]


def kubectl(*args, data=None, code=0, timeout=PATIENCE):
    done = subprocess.run([KUBECTL, "-n", NAMESPACE, *args], input=data, capture_output=True, timeout=timeout)
    assert code is None or done.returncode == code, (args, done)
    return done


def set_up():
    import json

    subprocess.run([KUBECTL, "create", "namespace", NAMESPACE], capture_output=True)
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": OBJECTS}).encode()
    # A new namespace gets its service account a moment later.
    deadline = time.time() + PATIENCE
    while kubectl("apply", "-f", "-", data=objects, code=None).returncode and time.time() < deadline:
        time.sleep(0.1)
    kubectl("wait", "--for=condition=Ready", "pod", "shell", "ticker", "pair", "web", "sink", "--timeout=60s", timeout=70)


class Terminal:
    """kubectl with a terminal of its own."""

    def __init__(self, *args, rows=24, columns=80):
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp(KUBECTL, [KUBECTL, "-n", NAMESPACE, *args])
        self.resize(rows, columns)

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, data):
        os.write(self.fd, data)

    def read(self):
        if select.select([self.fd], [], [], 0.1)[0]:
            try:
                self.seen += os.read(self.fd, 65536)
            except OSError:
                pass

    def expect(self, pattern):
        deadline = time.time() + PATIENCE
        while time.time() < deadline:
            found = re.search(pattern, self.seen)
            if found:
                self.seen = self.seen[found.end() :]
                return
            self.read()
        raise AssertionError(f"no {pattern!r} in {self.seen!r}")

    def repeat_until(self, data, pattern):
        """Types again and again: what the other side does with it takes a moment."""
        deadline = time.time() + PATIENCE
        while time.time() < deadline:
            self.type(data)
            for _ in range(5):
                self.read()
            if re.search(pattern, self.seen):
                self.expect(pattern)
                return
        raise AssertionError(f"no {pattern!r} in {self.seen!r}")

    def end(self):
        deadline = time.time() + PATIENCE
        while time.time() < deadline:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"does not end: {self.seen!r}")


def terminal():
    term = Terminal("exec", "-it", "shell", "--", "sh", rows=31, columns=97)
    term.expect(rb"[#$] ")
    term.repeat_until(b"stty size\n", rb"31 97")
    term.resize(40, 120)
    term.repeat_until(b"stty size\n", rb"40 120")
    term.type(b"sleep 1000; echo code $?\n")
    term.repeat_until(b"\x03", rb"code 130|\^C\r\n")
    term.repeat_until(b"echo al''ive\n", rb"alive")
    # What is typed before a program reads is the shell's.
    term.type(b"while read line; do echo got $line; done; echo at an e''nd\n")
    term.repeat_until(b"something\n", rb"got something")
    term.type(b"\x04")
    term.expect(rb"at an end")
    term.type(b"exit 42\n")
    assert term.end() == 42
    term = Terminal("exec", "-it", "shell", "--", "sh")
    term.expect(rb"[#$] ")
    term.type(b"\x04")
    assert term.end() == 0


def pipes():
    for code in (0, 1, 7, 255):
        kubectl("exec", "shell", "--", "sh", "-c", f"exit {code}", code=code)
    apart = kubectl("exec", "shell", "--", "sh", "-c", "echo out; echo err >&2")
    assert (apart.stdout, apart.stderr) == (b"out\n", b"err\n"), apart
    data = os.urandom(1_000_000)
    assert kubectl("exec", "-i", "shell", "--", "cat", data=data).stdout == data, "bytes are changed or lost"
    # The end of the input arrives, and output after it comes back.
    summed = kubectl("exec", "-i", "shell", "--", "sh", "-c", "md5sum; echo after", data=data).stdout.split()
    assert summed[0].decode() == hashlib.md5(data).hexdigest() and summed[-1] == b"after", summed
    # Input that nobody reads holds nothing up, as long as it fits into the pipe where containerd leaves it.
    assert kubectl("exec", "-i", "shell", "--", "echo", "done", data=data[:40_000]).stdout == b"done\n"
    assert len(kubectl("exec", "shell", "--", "head", "-c", "3000000", "/dev/zero").stdout) == 3_000_000


def attach():
    process = subprocess.Popen([KUBECTL, "-n", NAMESPACE, "attach", "ticker"], stdout=subprocess.PIPE)
    try:
        assert [process.stdout.readline() for _ in range(2)] == [b"tick\n"] * 2
    finally:
        process.kill()
        process.wait()
    once = ("run", "once", f"--image={IMAGE}", "--rm", "--restart=Never", "--quiet")
    piped = kubectl(*once, "-i", "--", *sh("cat; exit 5"), data=b"piped\n", code=5)
    assert b"piped" in piped.stdout, piped
    assert b"NotFound" in kubectl("get", "pod", "once", code=1).stderr
    term = Terminal("run", "twice", f"--image={IMAGE}", "-it", "--rm", "--restart=Never", "--", "sh")
    term.repeat_until(b"echo $((6*7))\n", rb"\n42")
    term.type(b"exit\n")
    assert term.end() == 0 and b"deleted" in term.seen, term.seen


def logs():
    assert kubectl("logs", "pair", "-c", "main").stdout == b"a1\na2\na3\n"
    everything = kubectl("logs", "pair", "--all-containers", "--prefix").stdout
    assert b"[pod/pair/main] a1" in everything and b"[pod/pair/other] b1" in everything, everything
    assert kubectl("logs", "pair", "-c", "main", "--tail=1").stdout == b"a3\n"
    assert kubectl("logs", "pair", "-c", "main", "--limit-bytes=4").stdout == b"a1\na"
    stamped = kubectl("logs", "pair", "-c", "main", "--timestamps").stdout
    assert re.match(rb"\d{4}-\d\d-\d\dT[\d:.]+Z a1\n", stamped), stamped
    assert b"a1" in kubectl("logs", "-l", "app=pair", "--all-containers").stdout
    ticks = kubectl("logs", "ticker", "--since=1s").stdout.count(b"\n")
    assert 0 < ticks <= 8, ticks
    process = subprocess.Popen([KUBECTL, "-n", NAMESPACE, "logs", "-f", "ticker", "--tail=1"], stdout=subprocess.PIPE)
    try:
        assert [process.stdout.readline() for _ in range(3)] == [b"tick\n"] * 3
    finally:
        process.kill()
        process.wait()
    deadline = time.time() + PATIENCE
    while b"crashing" not in kubectl("logs", "crash", "-p", code=None).stdout:
        assert time.time() < deadline, "no log of the container before"
        time.sleep(0.2)


def copies():
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(f"{folder}/in/sub")
        data = os.urandom(500_000)
        with open(f"{folder}/in/sub/bytes", "wb") as file:
            file.write(data)
        with open(f"{folder}/in/a name", "w") as file:
            file.write("spaced")
        kubectl("cp", f"{folder}/in", f"{NAMESPACE}/shell:/tmp/in")
        kubectl("cp", "shell:/tmp/in", f"{folder}/out")
        with open(f"{folder}/out/sub/bytes", "rb") as file:
            assert file.read() == data
        with open(f"{folder}/out/a name") as file:
            assert file.read() == "spaced"


class Forward:
    """A running port-forward."""

    def __init__(self, *args):
        self.process = subprocess.Popen(
            [KUBECTL, "-n", NAMESPACE, "port-forward", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        line = self.process.stdout.readline().decode()
        found = re.search(r"127\.0\.0\.1:(\d+) -> ", line)
        assert found, (line, self.process.stderr.read())
        self.port = int(found[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def exchange(self, data):
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            connection.settimeout(PATIENCE)
            connection.sendall(data)
            answer = b""
            while True:
                part = connection.recv(65536)
                if not part:
                    return answer
                answer += part

    def get(self, path="/"):
        return self.exchange(f"GET {path} HTTP/1.0\r\n\r\n".encode())


def forwards():
    for target in (("web", ":8080"), ("service/web", ":80"), ("service/web", ":http")):
        with Forward(*target) as forward:
            assert b"index" in forward.get(), target
    with Forward("web", ":8080") as forward:
        assert len(forward.get("/big").split(b"\r\n\r\n", 1)[1]) == 3_000_000
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(forward.get())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(answers) == 8 and all(b"index" in answer for answer in answers), answers
    data = os.urandom(2_000_000)
    with Forward("sink", ":7000") as forward:
        assert forward.exchange(data).split()[0].decode() == hashlib.md5(data).hexdigest()
    with Forward("web", ":9999") as forward:
        try:
            assert forward.get() == b""
        except ConnectionError:
            pass
        assert forward.process.wait(PATIENCE) == 1
        assert b"lost connection to pod" in forward.process.stderr.read()


def debugging():
    term = Terminal("debug", "shell", f"--image={IMAGE}", "-it", "--target=main", "--", "sh")
    term.repeat_until(b"ps | grep -c '[s]leep 100000'\n", rb"\r\n1\r\n")
    term.type(b"exit\n")
    term.end()
    images = kubectl("get", "pod", "shell", "-o", "jsonpath={.spec.ephemeralContainers[*].image}").stdout
    assert images.decode() == IMAGE, images


def tear_down():
    subprocess.run([KUBECTL, "delete", "namespace", NAMESPACE, "--wait=false"], capture_output=True)


if __name__ == "__main__":
    set_up()
    for part in sys.argv[2:]:
        globals()[part]()
    print("all as expected")
