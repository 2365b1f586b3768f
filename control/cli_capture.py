"""Shell: `fairlead capture apply|remove|show`: nftables rules that bring traffic to a sidecar (needs root)."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from typing import Any

from ..mesh.capture import CaptureError, removal, rules
from .settings import SettingError


def capture(options: Any) -> int:
    if options.capture_verb == "remove":
        return run(removal())
    try:
        text = rules(
            user=uid(options.user),
            redirect_port=options.redirect_port,
            inbound_port=options.inbound_port,
            own_ports=tuple(ports("--own-ports", options.own_ports)),
            app_ports=tuple(ports("--app-ports", options.app_ports)),
            exclude=tuple(part for part in options.exclude.split(",") if part),
        )
    except CaptureError as error:
        raise SettingError(str(error)) from error
    if options.capture_verb == "show":
        print(text, end="")
        return 0
    return run(text)


def uid(text: str) -> int:
    if text.isdigit():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise SettingError(f"--user: there is no user {text!r} on this machine") from None


def ports(flag: str, text: str) -> list[int]:
    parts = [part for part in text.split(",") if part]
    if not all(part.isdigit() for part in parts):
        raise SettingError(f"{flag}: expected port numbers separated by commas, got {text!r}")
    return [int(part) for part in parts]


def run(text: str) -> int:
    nft = shutil.which("nft", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if nft is None:
        print("fairlead capture: nft is not installed (Debian: apt-get install nftables)", file=sys.stderr)
        return 1
    done = subprocess.run([nft, "-f", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        hint = "" if os.geteuid() == 0 else " (this needs root)"
        print(f"fairlead capture: nft refused{hint}: {done.stderr.strip()}", file=sys.stderr)
    return 1 if done.returncode else 0
