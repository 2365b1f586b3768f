"""The packet filter's rules that bring an app's traffic to its sidecar, as text for `nft -f -`.

Outbound TCP of everybody on the host (or network namespace) but the sidecar's own user goes to the redirect listener;
inbound TCP to the app's ports goes to the inbound listener. The original destination stays readable on the accepted
socket (SO_ORIGINAL_DST). What must never be redirected: the sidecar's own connections, loopback, and its own ports.
"""

from __future__ import annotations

import ipaddress

TABLE = "fairlead"


class CaptureError(ValueError):
    """Rules that cannot be made; the message names the setting."""


def rules(
    *,
    user: int,
    redirect_port: int = 0,
    inbound_port: int = 0,
    own_ports: tuple[int, ...] = (),
    app_ports: tuple[int, ...] = (),
    exclude: tuple[str, ...] = (),
) -> str:
    """Rules for IPv4 and IPv6, which replace those of an earlier call. Raises CaptureError.

    `user`: uid of the sidecar's process. `redirect_port`, `inbound_port`: its listeners; 0: that direction is left
    alone. `app_ports`: inbound ports to capture; empty: all but `own_ports`. `exclude`: destinations (CIDR) left alone.
    """
    if not redirect_port and not inbound_port:
        raise CaptureError("give a redirect listener, an inbound listener, or both")
    for port in (redirect_port, inbound_port, *own_ports, *app_ports):
        if not 0 <= port <= 65535:
            raise CaptureError(f"{port} is not a port")
    if user < 0:
        raise CaptureError(f"user: expected a uid, got {user}")
    lines = [f"add table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    if redirect_port:
        lines += ["  chain output {", "    type nat hook output priority -100; policy accept;"]
        lines += [f"    meta skuid {user} return", '    oifname "lo" return']
        lines += [f"    {family} daddr {network} return" for family, network in map(_network, exclude)]
        lines += [f"    meta l4proto tcp redirect to :{redirect_port}", "  }"]
    if inbound_port:
        lines += ["  chain prerouting {", "    type nat hook prerouting priority -100; policy accept;"]
        lines += ['    iifname "lo" return']
        own = sorted({inbound_port, *own_ports} - {0})
        lines += [f"    tcp dport {{ {', '.join(map(str, own))} }} return"]
        which = f"tcp dport {{ {', '.join(map(str, sorted(set(app_ports))))} }}" if app_ports else "meta l4proto tcp"
        lines += [f"    {which} redirect to :{inbound_port}", "  }"]
    return "\n".join([*lines, "}"]) + "\n"


def removal() -> str:
    """Rules that take ours away; no error where there are none."""
    return f"add table inet {TABLE}\ndelete table inet {TABLE}\n"


def _network(text: str) -> tuple[str, str]:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise CaptureError(f"exclude: {error}") from None
    return ("ip" if network.version == 4 else "ip6"), str(network)
