"""
A TCP proxy in front of PostgreSQL that a test switches: refuse, reset, stall, delay, and faults at a chosen statement.

It knows as much of the protocol (version 3, without TLS) as it takes to see statements on their way and their ends.
"""

import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from sqlalchemy import make_url

STARTUP = 196608  # protocol 3.0; other first words ask for encryption or cancel
CHUNK = 1 << 16
LOSE, CUT, HOLD, LAG, STALL = "lose", "cut", "hold", "lag", "stall"


@dataclass
class Rule:
    """
    What is to happen to the next `times` statements that match; a COMMIT matches by the text of its transaction.

    lose: it is executed, its answer is lost. cut: it never reaches the server. hold: it waits for `go`. lag: the client
    is cut off at once, and it reaches the server on `go`. stall: it is executed, and half of its answer comes.
    """

    action: str
    pattern: str
    commits: bool
    times: int
    met: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)


@dataclass
class Link:
    """One client's connection, and ours to the server on its behalf."""

    client: socket.socket
    server: socket.socket
    statements: list[str] = field(default_factory=list)
    losing: Rule | None = None
    stalling: bool = False

    def cut(self) -> None:
        cut(self.client)
        cut(self.server)


def cut(end: socket.socket) -> None:
    """Close a connection by a reset, whatever is under way on it; a thread that reads from it is woken."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        end.shutdown(socket.SHUT_RD)
    end.close()


class Proxy:
    """Listens on a port of its own until closed; every fault can be switched at any moment."""

    def __init__(self, host: str, port: int):
        self._target = (host, port)
        self._links: list[Link] = []
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = threading.Event()
        self._delay_seconds = 0.0
        self._threads: list[threading.Thread] = []
        self._listening: socket.socket | None = None
        self.port = 0
        self._listen()

    def url(self, url: str) -> str:
        """Return the URL of the same database by way of this proxy."""
        return make_url(url).set(host="127.0.0.1", port=self.port).render_as_string(hide_password=False)

    def refuse(self) -> None:
        """Reset every connection and refuse new ones."""
        listening, self._listening = self._listening, None
        if listening is not None:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listening.close()
        self.reset()

    def stall(self) -> None:
        """Take connections and data, and say nothing more."""
        self._flowing.clear()

    def delay(self, seconds: float) -> None:
        """Let every answer take so much longer."""
        self._delay_seconds = seconds

    def reset(self) -> None:
        """Reset every connection there is."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.cut()

    def resume(self) -> None:
        """Be a good connection again; what was stalled goes on."""
        self._delay_seconds = 0.0
        if self._listening is None:
            self._listen()
        self._flowing.set()

    def when_committing(self, action: str, pattern: str, times: int = 1) -> Rule:
        """Do this to the COMMIT of a transaction in which a statement matches."""
        return self._add(Rule(action, pattern, True, times))

    def when_asked(self, action: str, pattern: str, times: int = 1) -> Rule:
        """Do this to a statement that matches."""
        return self._add(Rule(action, pattern, False, times))

    def close(self) -> None:
        self._closed.set()
        self._flowing.set()
        for rule in self._rules:
            rule.go.set()
        self.refuse()
        for thread in self._threads:
            thread.join(10)

    def _add(self, rule: Rule) -> Rule:
        with self._lock:
            self._rules.append(rule)
        return rule

    def _listen(self) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(64)
        self.port = listening.getsockname()[1]
        self._listening = listening
        self._run(self._accept, listening)

    def _run(self, function, *arguments) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=10)
            except OSError:
                cut(client)
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client, server)
            with self._lock:
                self._links.append(link)
            self._run(self._forward, link)
            self._run(self._answer, link)

    def _forward(self, link: Link) -> None:
        with suppress(OSError):
            for message, statement in messages(link.client):
                self._flowing.wait()
                rule = self._rule_for(link, statement) if statement is not None else None
                if rule is None:
                    link.server.sendall(message)
                elif not self._apply(rule, link, message):
                    break
        link.cut()

    def _apply(self, rule: Rule, link: Link, message: bytes) -> bool:
        """Do what the rule says; False ends the connection."""
        if rule.action in {LOSE, STALL}:
            link.losing, link.stalling = rule, rule.action == STALL
            link.server.sendall(message)
            if link.stalling:
                rule.met.set()
            return True
        rule.met.set()
        if rule.action == CUT:
            return False
        if rule.action == LAG:
            link.losing = rule
            cut(link.client)
        rule.go.wait()
        if self._closed.is_set():
            return False
        link.server.sendall(message)
        return rule.action == HOLD or not rule.done.wait(10)

    def _rule_for(self, link: Link, statement: str) -> Rule | None:
        word = statement.strip().rstrip(";").upper()
        with self._lock:
            text = "\n".join(link.statements) if word == "COMMIT" else statement
            for rule in self._rules:
                if rule.times and rule.commits == (word == "COMMIT") and re.search(rule.pattern, text):
                    rule.times -= 1
                    return rule
            if word in {"COMMIT", "ROLLBACK"} or word.startswith("BEGIN"):
                link.statements.clear()
            link.statements.append(statement)
        return None

    def _answer(self, link: Link) -> None:
        with suppress(OSError):
            while data := link.server.recv(CHUNK):
                rule = link.losing
                if rule is not None and link.stalling:
                    link.client.sendall(data[: len(data) // 2])
                    self._closed.wait()
                    break
                if rule is not None:  # the first word of the answer comes when the statement has been executed
                    rule.met.set()
                    rule.done.set()
                    break
                self._flowing.wait()
                if self._delay_seconds and self._closed.wait(self._delay_seconds):
                    break
                link.client.sendall(data)
        link.cut()


def messages(client: socket.socket) -> Iterator[tuple[bytes, str | None]]:
    """Yield every message of a client, with the statement in it if it asks for one."""
    while True:  # the start: messages without a type, until the one that begins the session
        length = receive(client, 4)
        body = receive(client, struct.unpack("!I", length)[0] - 4)
        yield length + body, None
        if struct.unpack("!I", body[:4])[0] == STARTUP:
            break
    parsed = ""
    while True:
        head = receive(client, 5)
        body = receive(client, struct.unpack("!I", head[1:])[0] - 4)
        kind, statement = head[:1], None
        if kind == b"Q":
            statement = body.rstrip(b"\0").decode("utf-8", "replace")
        elif kind == b"P":
            parsed = body.split(b"\0", 2)[1].decode("utf-8", "replace")
        elif kind == b"E":
            statement = parsed
        yield head + body, statement


def receive(end: socket.socket, count: int) -> bytes:
    """Return so many bytes. Raises OSError when the other end has gone."""
    data = b""
    while len(data) < count:
        chunk = end.recv(min(count - len(data), CHUNK))
        if not chunk:
            raise OSError("closed")
        data += chunk
    return data


@contextmanager
def proxied(url: str) -> Iterator[tuple[Proxy, str]]:
    """Yield a proxy in front of the database behind `url`, and the URL that leads through it."""
    target = make_url(url)
    proxy = Proxy(target.host or "127.0.0.1", target.port or 5432)
    try:
        yield proxy, proxy.url(url)
    finally:
        proxy.close()
