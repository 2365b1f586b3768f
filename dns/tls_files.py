"""Shell: the DNS server's certificate from files, renewed without a restart when they change."""

from __future__ import annotations

import ssl
from pathlib import Path


class Certificate:
    """A certificate chain and its key (PEM). Contexts made here present what the files hold now."""

    def __init__(self, chain: str, key: str) -> None:
        self.problem = ""
        """Why what the files hold now is not used; empty: it is."""
        self._chain = Path(chain)
        self._key = Path(key)
        self._contexts: list[ssl.SSLContext] = []
        self._seen = self._marks()
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._chain, self._key)

    def context(self, *protocols: str) -> ssl.SSLContext:
        """A server's context that offers these ALPN protocols. Raises OSError, ssl.SSLError."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.set_alpn_protocols(list(protocols))
        _load(made, self._chain, self._key)
        self._contexts.append(made)
        return made

    def look(self) -> bool:
        """Whether the files have changed and are used now. What cannot be used leaves everything as it was."""
        marks = self._marks()
        if marks == self._seen:
            return False
        self._seen = marks
        try:
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._chain, self._key)  # a pair, before any is replaced
            for context in self._contexts:
                _load(context, self._chain, self._key)
        except (OSError, ValueError) as error:
            self.problem = f"{self._chain}, {self._key}: {error}; the certificate before stays in use"
            return False
        self.problem = ""
        return True

    def _marks(self) -> list[tuple[int, int, int]]:
        found = []
        for path in (self._chain, self._key):
            try:
                stat = path.stat()
                found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                found.append((0, 0, 0))
        return found


def _load(context: ssl.SSLContext, chain: Path, key: Path) -> None:
    context.load_cert_chain(chain, key, password=_no_password)


def _no_password() -> str:
    raise ValueError("the key needs a password; give one without")
