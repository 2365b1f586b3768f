"""Compiled conditions of an HTTP route: each says whether it holds for a request, and in words what it asks for.

Runs compiled (with match.pxd) or as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .linear_regex import Regex, RegexError
from .resources import HTTPMatchRequest, StringMatch
from .tables import Decision, Request

CLAIMS_PREFIX = "@request.auth.claims"
SHOWN_MAX = 200
"""Characters of a value that an explanation repeats."""


class TextTest:
    """A StringMatch: exact, prefix or whole-string regex; `kind` is `any` where nothing is set."""

    def __init__(self, match: StringMatch, ignore_case: bool = False) -> None:
        self.holds: Callable[[str], bool]
        if match.exact is not None:
            self.kind, self.value = "exact", match.exact
            own = match.exact.lower() if ignore_case else match.exact
            self.holds = (lambda text: text.lower() == own) if ignore_case else own.__eq__
        elif match.prefix is not None:
            self.kind, self.value = "prefix", match.prefix
            start = match.prefix.lower() if ignore_case else match.prefix
            self.holds = (lambda text: text.lower().startswith(start)) if ignore_case else _starts(start)
        elif match.regex is not None:
            self.kind, self.value = "regex", match.regex
            # Only absence can be asked for with a bare star (withoutHeaders); see WithoutHeader.
            self.holds = _never if match.regex == "*" else _regex(match.regex)
        else:
            self.kind, self.value, self.holds = "any", "", _always

    def __str__(self) -> str:
        return f"{self.kind} {self.value!r}" if self.kind != "any" else "present"


def _always(text: str) -> bool:
    return True


def _never(text: str) -> bool:
    return False


def _starts(prefix: str) -> Callable[[str], bool]:
    return lambda text: text.startswith(prefix)


def _regex(pattern: str) -> Callable[[str], bool]:
    try:
        return Regex(pattern).matches
    except RegexError:
        # Validation refuses such a pattern by name; where one comes this far, it matches nothing.
        return _never


class Condition:
    """One thing that a block of `match` asks for."""

    def holds(self, request: Request, query: str) -> bool:
        raise NotImplementedError

    def field(self) -> str:
        """Where it stands below the block."""
        raise NotImplementedError

    def seen(self, request: Request, query: str) -> str:
        """What the request has, in words."""
        raise NotImplementedError


def _shown(what: str, value: str | None) -> str:
    return f"{what} is absent" if value is None else f"{what} is {value[:SHOWN_MAX]!r}"


class _Field(Condition):
    """Method, scheme or authority."""

    def __init__(self, name: str, match: StringMatch) -> None:
        self._name = name
        self._test = TextTest(match)

    def holds(self, request: Request, query: str) -> bool:
        if self._name == "scheme":
            return bool(self._test.holds(scheme_of(request)))
        return bool(self._test.holds(getattr(request, self._name)))

    def field(self) -> str:
        return self._name

    def seen(self, request: Request, query: str) -> str:
        return _shown(self._name, scheme_of(request) if self._name == "scheme" else getattr(request, self._name))

    def __str__(self) -> str:
        return f"{self._name} {self._test}"


class _Header(Condition):
    """Of a header with several lines one that fits is enough (Envoy since 1.39; before, they were joined first)."""

    def __init__(self, name: str, match: StringMatch) -> None:
        self._name = name.lower()
        self._test = TextTest(match)
        self._present = self._test.kind == "any"
        self._exact: str | None = match.exact

    def holds(self, request: Request, query: str) -> bool:
        value = header_value(request, self._name)
        if value is None:
            return False
        if "," in value and not self._present:
            return _line_holds(self._test, request, self._name)
        if self._exact is not None:
            return bool(value == self._exact)
        return self._present or bool(self._test.holds(value))

    def field(self) -> str:
        return f"headers[{self._name}]"

    def seen(self, request: Request, query: str) -> str:
        return _shown(f"header {self._name}", header_value(request, self._name))

    def __str__(self) -> str:
        return f"header {self._name} {self._test}"


def _line_holds(test: TextTest, request: Request, name: str) -> bool:
    for value in header_values(request, name):  # noqa: SIM110 - compiled, a generator is more
        if test.holds(value):
            return True
    return False


class _WithoutHeader(Condition):
    """The whole matcher negated; a missing header is compared as the empty string (Istio)."""

    def __init__(self, name: str, match: StringMatch) -> None:
        self._name = name.lower()
        self._test = TextTest(match)
        self._absent = self._test.kind == "any" or (self._test.kind == "regex" and match.regex == "*")

    def holds(self, request: Request, query: str) -> bool:
        value = header_value(request, self._name)
        if self._absent:
            return value is None
        if value is not None and "," in value:
            return not _line_holds(self._test, request, self._name)
        return not self._test.holds(value or "")

    def field(self) -> str:
        return f"withoutHeaders[{self._name}]"

    def seen(self, request: Request, query: str) -> str:
        return _shown(f"header {self._name}", header_value(request, self._name))

    def __str__(self) -> str:
        return f"header {self._name} absent" if self._absent else f"header {self._name} not {self._test}"


class _Query(Condition):
    def __init__(self, name: str, match: StringMatch) -> None:
        self._name = name
        self._test = TextTest(match)

    def holds(self, request: Request, query: str) -> bool:
        value = query_parameter(query, self._name)
        return value is not None and self._test.holds(value)

    def field(self) -> str:
        return f"queryParams[{self._name}]"

    def seen(self, request: Request, query: str) -> str:
        return _shown(f"query parameter {self._name}", query_parameter(query, self._name))

    def __str__(self) -> str:
        return f"query parameter {self._name} {self._test}"


class _Claim(Condition):
    """A claim of a verified token (gateways only): `@request.auth.claims.a.b` or `...claims[a][b]`."""

    def __init__(self, name: str, match: StringMatch, negate: bool = False) -> None:
        self._name = name
        rest = name[len(CLAIMS_PREFIX) :]
        self._path = rest.replace("]", "").split("[")[1:] if rest.startswith("[") else rest.split(".")[1:]
        self._test = TextTest(match)
        self._negate = negate

    def holds(self, request: Request, query: str) -> bool:
        value = self._value(request)
        values = value if isinstance(value, list) else [value]
        found = False
        for one in values:
            if isinstance(one, str) and self._test.holds(one):
                found = True
        return found != self._negate

    def _value(self, request: Request) -> Any:
        value: Any = getattr(request, "claims", None)
        for step in self._path:
            value = value.get(step) if isinstance(value, Mapping) else None
        return value

    def field(self) -> str:
        return "withoutHeaders" if self._negate else "headers"  # its name holds brackets that a path cannot

    def seen(self, request: Request, query: str) -> str:
        value = self._value(request)
        return _shown(f"claim {self._name}", value if value is None else str(value))

    def __str__(self) -> str:
        return f"claim {self._name} {'not ' if self._negate else ''}{self._test}"


def header_value(request: Request, name: str) -> str | None:
    """Value of a header by lower-case name; Host and HTTP/2 pseudo headers as Envoy shows them."""
    if name == "host" or name == ":authority":
        return request.authority or None
    if name[:1] == ":":
        return {":method": request.method, ":path": request.path, ":scheme": scheme_of(request)}.get(name)
    return request.header(name)


def header_values(request: Request, name: str) -> list[str]:
    """The same line by line."""
    if name == "host" or name[:1] == ":":
        value = header_value(request, name)
        return [] if value is None else [value]
    return request.values(name)


def scheme_of(request: Request) -> str:
    """What the client spoke as far as we may believe it: X-Forwarded-Proto of those who may say so (`at_edge` takes it
    out of what others send), else what it spoke to us."""
    told = request.header("x-forwarded-proto")
    return told if told == "https" or told == "http" else request.scheme


def query_parameter(query: str, name: str) -> str | None:
    """First value of a parameter, undecoded; "" for `k` and `k=`; None where absent."""
    for part in query.split("&") if query else ():
        key, _, value = part.partition("=")
        if key == name:
            return value
    return None


class HttpMatch:
    """One block of `match`: all its conditions hold. `number`: of the block in its route, for explain; -1 for none."""

    def __init__(self, block: HTTPMatchRequest | None, number: int = -1) -> None:
        self.number = number
        self.uri: TextTest | None = None
        self.uri_kind = 0
        """0 no condition, 1 exact, 2 prefix, 3 anything else (by `uri`)."""
        self.uri_value = ""
        self.ignore_case = False
        self.name = block.name if block is not None else ""
        self.conditions: tuple[Condition, ...] = ()
        if block is None:
            self.uri_length = 0
            return
        uri = block.uri
        if uri is not None and (uri.exact is not None or uri.prefix is not None or uri.regex is not None):
            self.uri = TextTest(uri, block.ignore_uri_case)
            self.uri_value = self.uri.value
            self.ignore_case = block.ignore_uri_case
            if self.ignore_case or self.uri.kind == "regex":
                self.uri_kind = 3
            else:
                self.uri_kind = 1 if self.uri.kind == "exact" else 2
        self.uri_length = len(self.uri_value)
        self.conditions = tuple(_conditions(block))

    @property
    def catches_all(self) -> bool:
        """No condition but perhaps prefix `/` or regex `.*` on the path: later routes are never reached."""
        if self.conditions:
            return False
        uri = self.uri
        return uri is None or (uri.kind, uri.value) in (("prefix", "/"), ("prefix", ""), ("regex", ".*"))

    def holds(self, request: Request, path: str, query: str) -> bool:
        kind = self.uri_kind
        if kind == 2:
            if not path.startswith(self.uri_value):
                return False
        elif kind == 1:
            if path != self.uri_value:
                return False
        elif kind == 3 and self.uri is not None and not self.uri.holds(path):
            return False
        conditions = self.conditions
        for condition in conditions:  # noqa: SIM110 - a generator costs more than the loop
            if not condition.holds(request, query):
                return False
        return True

    def failure(self, request: Request, path: str, query: str) -> tuple[str, str]:
        """(field below the block, in words what was seen and what is wanted) of the first condition that does not
        hold; empty where all hold."""
        if self.uri is not None and not self.uri.holds(path):
            wanted = f"{self.uri}{' without case' if self.ignore_case else ''}"
            return "uri", f"path is {path[:SHOWN_MAX]!r}, wanted {wanted}"
        for condition in self.conditions:
            if not condition.holds(request, query):
                seen = condition.seen(request, query)
                return (
                    condition.field(),
                    f"{seen}, wanted {str(condition).removeprefix(seen.partition(' is ')[0]).strip()}",
                )
        return "", ""

    def __str__(self) -> str:
        parts = [f"path {self.uri}"] if self.uri is not None else []
        return " and ".join(parts + [str(condition) for condition in self.conditions]) or "no condition"


class Arm:
    """One match block of one route. `change` makes the decision fit the request; None: it is shared as it is."""

    def __init__(
        self,
        match: HttpMatch,
        decision: Decision,
        change: Callable[[Decision, Request, HttpMatch], Decision] | None,
        index: int,
        label: str,
    ) -> None:
        self.match = match
        self.decision = decision
        self.change = change
        self.index = index
        self.label = label
        self.unconditional = match.uri is None and not match.conditions


EVERYTHING = HttpMatch(None)
"""One for all routes without a condition."""


def _conditions(block: HTTPMatchRequest) -> list[Condition]:
    found: list[Condition] = []
    for name, match in (("method", block.method), ("scheme", block.scheme), ("authority", block.authority)):
        if match is not None and not (match.exact is None and match.prefix is None and match.regex is None):
            found.append(_Field(name, match))
    for name, match in block.headers.items():
        found.append(_Claim(name, match) if name.startswith(CLAIMS_PREFIX) else _Header(name, match))
    for name, match in block.without_headers.items():
        found.append(_Claim(name, match, True) if name.startswith(CLAIMS_PREFIX) else _WithoutHeader(name, match))
    found += [_Query(name, match) for name, match in block.query_params.items()]
    return found
