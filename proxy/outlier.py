"""Outlier detection: when a host has failed so often that it is taken out, and when it may come back.

Istio's outlierDetection as Envoy carries it out: consecutive 5xx, consecutive gateway errors (502, 503, 504), and with
`split` consecutive failures of local origin (connect, reset, timeout), which otherwise count as 5xx. A host is ejected
at once and comes back at a sweep (every `interval`) after `base_ejection` times the number of its ejections, 300 s or
base at most; each healthy sweep takes that number one back. `outlierDetectionHttpErrorCodes` say which answers are
errors in place of 5xx. Success rate (off unless asked for): at each sweep, hosts that answered often enough since the
last one are compared, and out is who is further below their mean than so many standard deviations.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..policy.tables import OutlierPolicy
    from .host import Host

EJECTION_S_MAX = 300.0
GATEWAY = frozenset((502, 503, 504))
ROUNDING = 1e-9
"""Percent by which the mean of equal rates may come out above them."""


class Health:
    """What is remembered of one host."""

    __slots__ = (
        "consecutive_5xx",
        "consecutive_gateway",
        "consecutive_local",
        "ejected_at",
        "ejected_until",
        "ejections",
        "local",
        "rate",
        "why",
    )

    def __init__(self) -> None:
        self.consecutive_5xx = 0
        self.consecutive_gateway = 0
        self.consecutive_local = 0
        self.ejections = 0
        """How often in a row it was taken out; steps back with healthy sweeps."""
        self.ejected_at = 0.0
        self.ejected_until = 0.0
        """0: it is not out."""
        self.why = ""
        self.rate: tuple[int, int] = (0, 0)
        """(successes, all) since the last sweep; counted where the policy judges by success rate."""
        self.local: tuple[int, int] = (0, 0)
        """The same of attempts to get any answer; with `split`."""


def judge(policy: OutlierPolicy, health: Health, status: int, local_failure: bool) -> str:
    """Take one result; the reason to eject the host now, or empty. `status` 0: there was no answer."""
    if policy.codes is not None and not local_failure:
        # As Envoy's error matcher: any other answer is a success, even a 5xx.
        status = 200 if status not in policy.codes else max(status, 500)
    if policy.success_hosts:
        _count(policy, health, status, local_failure)
    if local_failure:
        if policy.split:
            health.consecutive_local += 1
            if policy.consecutive_local and health.consecutive_local >= policy.consecutive_local:
                times = health.consecutive_local
                return f"{times} {'failure' if times == 1 else 'failures'} to connect or to get an answer in a row"
            return ""
        status = status if status >= 500 else 503
    elif policy.split:
        health.consecutive_local = 0
    if status < 500:
        health.consecutive_5xx = health.consecutive_gateway = 0
        return ""
    health.consecutive_5xx += 1
    if status in GATEWAY:
        health.consecutive_gateway += 1
        if policy.consecutive_gateway and health.consecutive_gateway >= policy.consecutive_gateway:
            return f"{health.consecutive_gateway} gateway errors in a row"
    else:
        health.consecutive_gateway = 0
    if policy.consecutive_5xx and health.consecutive_5xx >= policy.consecutive_5xx:
        return f"{health.consecutive_5xx} server errors in a row"
    return ""


def _count(policy: OutlierPolicy, health: Health, status: int, local_failure: bool) -> None:
    if policy.split:
        good, total = health.local
        health.local = (good + (not local_failure), total + 1)
    if not (policy.split and local_failure):
        good, total = health.rate
        health.rate = (good + (status < 500 and not local_failure), total + 1)


def below_mean(policy: OutlierPolicy, hosts: list[Host]) -> list[tuple[Host, str]]:
    """Hosts to eject for their success rate since the last sweep, with the reason; counts begin anew. Envoy's
    algorithm, which judges answers and, with `split`, attempts to get one apart from each other."""
    found = []
    for split, what in ((False, "answers"), (True, "attempts to get an answer")):
        rates = []
        for host in hosts:
            good, total = host.health.local if split else host.health.rate
            if total >= policy.success_volume and not host.health.ejected_until:
                rates.append((host, 100.0 * good / total, total))
        if rates and len(rates) >= policy.success_hosts:
            mean = sum(rate for _, rate, _ in rates) / len(rates)
            deviation = sqrt(sum((rate - mean) ** 2 for _, rate, _ in rates) / len(rates))
            least = mean - policy.success_stdev_factor / 1000 * deviation
            found += [
                (
                    host,
                    f"success rate {rate:.1f} % of {total} {what} is below {least:.1f} %: the mean of {len(rates)} "
                    f"hosts is {mean:.1f} %, the standard deviation {deviation:.1f}",
                )
                for host, rate, total in rates
                if rate < least - ROUNDING
            ]
    for host in hosts:
        host.health.rate = host.health.local = (0, 0)
    return found


def may_eject(policy: OutlierPolicy, ejected: int, hosts: int) -> bool:
    """Whether one more may be out. As in Envoy today, 10 % of fewer than ten hosts is none of them."""
    return (ejected + 1) * 100 <= policy.max_ejection_percent * hosts


def eject(policy: OutlierPolicy, health: Health, why: str, now: float) -> None:
    health.ejections += 1
    longest = max(EJECTION_S_MAX, policy.base_ejection_s)
    health.ejected_at = now
    health.ejected_until = now + min(policy.base_ejection_s * health.ejections, longest)
    health.why = why
    health.consecutive_5xx = health.consecutive_gateway = health.consecutive_local = 0


def sweep(hosts: list[Host], now: float) -> list[Host]:
    """Those that come back at this sweep; steps the count of the healthy ones back."""
    back = []
    for host in hosts:
        health = host.health
        if health.ejected_until:
            if now >= health.ejected_until:
                health.ejected_until = 0.0
                health.why = ""
                back.append(host)
        elif health.ejections:
            health.ejections -= 1
    return back
