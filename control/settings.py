"""Command-line settings: every flag also as FAIRLEAD_* in the environment; flag over environment over default."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

USAGE = 2
"""Exit code of a command line that cannot be understood."""


SECONDS_MAX = 100 * 365 * 86400.0
"""Longest duration of a flag: certificates' dates and the event loop's timers go no further than centuries."""


class SettingError(Exception):
    """A setting's value makes no sense; the message names the flag and what is expected."""


class _Append(argparse.Action):
    """As argparse's `append`, but what the command line says takes the place of the default."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        before = getattr(namespace, self.dest, None)
        setattr(namespace, self.dest, [*([] if before is self.default or before is None else before), values])


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose options take their default from the environment: --data-dir from FAIRLEAD_DATA_DIR."""

    environment: Mapping[str, str] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        self._told: list[tuple[str, argparse.Action, str]] = []
        """(variable, option, text) of what the environment sets; read once this parser is the one that is used."""
        super().__init__(*args, **kwargs)
        self.register("action", "append", _Append)

    def _get_formatter(self) -> argparse.HelpFormatter:
        """With its width: argparse asks for a formatter at every argument, which else imports shutil to measure the
        terminal, and with it all compressors."""
        return self.formatter_class(prog=self.prog, width=columns() - 2)  # type: ignore[call-arg]

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        long = next((name for name in names if isinstance(name, str) and name.startswith("--")), None)
        if long and long != "--help" and options.get("action") not in ("help", "version"):
            variable = "FAIRLEAD_" + long[2:].upper().replace("-", "_")
            text = type(self).environment.get(variable)
            if text:
                options.pop("required", None)
            if options.get("help") and options["help"] != argparse.SUPPRESS:
                options["help"] += f" [{variable}]"
            action = super().add_argument(*names, **options)
            if text:
                self._told.append((variable, action, text))
            return action
        return super().add_argument(*names, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for variable, action, text in self._told:
            if isinstance(action, argparse._StoreTrueAction):
                action.default = self._value(variable, action, text.lower()) in ("1", "true", "yes")
            elif isinstance(action, _Append) or action.nargs in ("+", "*"):
                action.default = [self._value(variable, action, part) for part in text.split(",") if part]
            else:
                action.default = self._value(variable, action, text)
        found, rest = super().parse_known_args(args, namespace)
        if rest:  # told here, by the verb that they were given to
            flags = [option for option in self._option_string_actions if option.startswith("--")]
            self.error(f"unrecognized arguments: {' '.join(rest)}{meant(rest[0].partition('=')[0], flags)}")
        if found is not None:
            told = {action.dest for _, action, _ in self._told if getattr(found, action.dest, None) is action.default}
            found.from_environment = frozenset(told) | getattr(found, "from_environment", frozenset())
        return found, rest

    def _value(self, variable: str, action: argparse.Action, text: str) -> Any:
        """What the text of a variable says, as argparse takes it from the command line."""
        choices = action.choices
        if isinstance(action, argparse._StoreTrueAction):
            choices = ("1", "0", "true", "false", "yes", "no")
        try:
            value: Any = action.type(text) if callable(action.type) else text
        except argparse.ArgumentTypeError as error:
            self.error(f"{variable}: {error}")
        except ValueError:
            self.error(f"{variable}: invalid value {text!r}")
        if choices is not None and value not in choices:
            self.error(f"{variable}: expected one of {', '.join(map(str, choices))}, got {text!r}")
        return value

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """As argparse's, but with what is near in place of everything that there is, where something is."""
        if action.choices is not None and value not in action.choices:
            near = meant(str(value), action.choices)
            known = near or f" (choose from {', '.join(map(str, action.choices))})"
            raise argparse.ArgumentError(action, f"invalid choice: {str(value)!r}{known}")

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def meant(word: str, known: Iterable[Any]) -> str:
    """`; did you mean ...?` where one of the known words is near; else nothing."""
    from difflib import get_close_matches  # for mistakes alone

    near = get_close_matches(word, [str(one) for one in known], 1)
    return f"; did you mean {near[0]}?" if near else ""


def counted(number: int, noun: str) -> str:
    """`1 entry`, `2 entries`: a number with its noun."""
    several = f"{noun[:-1]}ies" if noun[-1] == "y" and noun[-2] not in "aeiou" else f"{noun}s"
    return f"{number:,} {noun if number == 1 else several}"


def cause(error: BaseException) -> str:
    """As `why`, where the message names the file already."""
    return error.strerror if isinstance(error, OSError) and error.strerror else why(error)


def why(error: BaseException) -> str:
    """An error of the operating system in words, without its number: `/var/x: Permission denied`."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


REGISTRIES = ("consul", "etcd", "nomad", "docker", "marathon")
"""Flags that name a source of services."""


def give_way(options: Any, name: str, *others: str) -> None:
    """Of settings that exclude one another: what only the environment says (FAIRLEAD_CONTROL, there for every verb)
    gives way to another that the command line has."""
    told: frozenset[str] = getattr(options, "from_environment", frozenset())
    if name in told and any(getattr(options, other, None) and other not in told for other in others):
        setattr(options, name, [] if isinstance(getattr(options, name), list) else None)


def columns() -> int:
    """Of the terminal, as shutil.get_terminal_size has it."""
    told = os.environ.get("COLUMNS", "")
    if told.isdigit() and int(told):
        return int(told)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):
        return 80


def address(text: str) -> tuple[str, int] | None:
    """HOST:PORT, :PORT or PORT to (host, port); `off` to None. Raises argparse.ArgumentTypeError."""
    if text == "off":
        return None
    host, colon, port = text.rpartition(":")
    if not colon:
        host = ""
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdigit() or not 0 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, got {text!r}")
    return host, int(port)


def workload_name(text: str) -> str:
    """`namespace/name` or `name`, as it is. Raises argparse.ArgumentTypeError."""
    parts = text.split("/")
    if len(parts) > 2 or not all(re.fullmatch(r"[^\s\x00-\x1f\x7f]{1,253}", part) for part in parts):
        raise argparse.ArgumentTypeError(f"expected NAMESPACE/NAME, got {text!r}")
    return text


def host(text: str) -> str:
    """An IP address or a host name, without a port. Raises argparse.ArgumentTypeError."""
    if text:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", text):
                raise argparse.ArgumentTypeError(f"expected an address without a port, got {text!r}") from None
    return text


def control_url(text: str) -> str:
    """The URL of a control API without a slash at its end; unix:///PATH as `proxy.client` has it. Raises
    SettingError."""
    if text.startswith("unix:///") and not re.search(r"[\s\x00-\x1f\x7f]", text):
        return f"http+unix://{quote(text[7:], safe='')}"
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise SettingError(f"--control: expected http://HOST:PORT, https://HOST:PORT or unix:///PATH, got {text!r}")
    return text.rstrip("/")


def service_cidr(text: str) -> Any:
    """Ranges of ClusterIPs; none for an empty text. Raises argparse.ArgumentTypeError."""
    from .cluster_ips import parse_ranges

    try:
        return parse_ranges(text) if text else ()
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def trust_domain(text: str) -> str:
    """The name of a SPIFFE trust domain (SPIFFE-ID, section 2.1). Raises argparse.ArgumentTypeError."""
    if not re.fullmatch(r"[a-z0-9._-]{1,255}", text):
        raise argparse.ArgumentTypeError(f"expected lower-case letters, digits, '.', '-' and '_', got {text!r}")
    return text


def bearer_token(path: str) -> str:
    """The token in a file; raises OSError, ValueError for what is no token."""
    token = Path(path).read_text().strip()
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ValueError("expected one token, of printable ASCII characters without blanks")
    return token


def labels(text: str) -> dict[str, str]:
    """`k=v,k2=v2` to a dictionary."""
    found = {}
    for part in text.split(","):
        if not part:
            continue
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise argparse.ArgumentTypeError(f"expected key=value[,key=value...], got {part!r}")
        found[key.strip()] = value.strip()
    return found


def header(text: str) -> tuple[str, str]:
    """`name: value` to a pair."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"expected 'name: value', got {text!r}")
    return name.strip(), value.strip()


def seconds(text: str) -> float:
    """`30`, `30s`, `500ms`, `5m`, `24h` to seconds."""
    for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0), ("", 1.0)):
        if text.endswith(unit):
            number = text[: len(text) - len(unit)]
            try:
                value = float(number) * factor
            except ValueError:
                continue
            if 0 <= value <= SECONDS_MAX:
                return value
    raise argparse.ArgumentTypeError(f"expected a duration such as 30s, 500ms or 24h, got {text!r}")
