"""The health of the own app from the results of its checks: whether it is ready, and whether it must be restarted.

As Kubernetes' kubelet does: liveness and readiness are not checked before startup has passed; a check changes its mind
after `failure_threshold` failures, or `success_threshold` successes, in a row; readiness begins unready, liveness
alive. A reason stays as it was when a check changed its mind, so that an output that is another each time is no news to
anybody; the last output is kept beside it. A core: `now` is monotonic seconds, draws are in [0, 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from msgspec import Struct

from .checks import OUTPUT_MOST, Check

JITTER = 0.1
"""Of a period: how far one check may come before or after it, so that those of many apps do not come together."""
WHY_MOST = 300


class CheckState(Struct):
    """One check and how it stands."""

    check: Check
    passing: bool | None = None
    """None: not known yet."""
    output: str = ""
    """Of the last run, passing or not."""
    at: float = 0.0
    """Unix seconds of the end of the last run; 0: never run."""
    took_s: float = 0.0
    run: int = 0
    """Results in a row that are the same as the last."""
    last: bool | None = None
    runs: int = 0
    failures: int = 0
    """Of all runs."""
    why: str = ""
    """While failing: the output with which it began to."""
    due: float = inf
    began: float = 0.0
    turn: int = 0
    """Counts starts of the app: a result of an earlier one does not count."""
    running: bool = False


class Health:
    """`due(now)` gives what is to be run now, `done` takes a result; `ready`, `why` and `doomed` say what follows."""

    def __init__(self, checks: Iterable[Check]) -> None:
        self.checks = [CheckState(check) for check in checks]
        self.ready = False
        self.why = "the app is not started yet"
        self.doomed = ""
        """Why the app must be restarted; empty: it need not be."""
        self._started_at = 0.0
        self._up = False
        self._turn = 0

    def app_started(self, now: float, ready: bool = False) -> None:
        """The app was started, or was there when we came: everything begins again; `ready`: others found it so."""
        self._up, self._started_at, self.doomed = True, now, ""
        self._turn += 1
        for one in self.checks:
            check = one.check
            one.passing = True if ready or check.purpose == "liveness" or check.passing_at_first else None
            one.run, one.last, one.why, one.running, one.due = 0, None, "", False, inf
            one.turn = self._turn
        self._arm(now)
        self._judge()

    def replaced(self, checks: Iterable[Check], now: float) -> Health:
        """With other checks; those that stay keep their state."""
        made = Health(checks)
        if not self._up:
            return made
        kept = {one.check: one for one in self.checks}
        made._turn = self._turn
        made.app_started(now)
        made._started_at = self._started_at
        made.checks = [kept.get(one.check, one) for one in made.checks]
        made._turn += 1
        for one in made.checks:
            if one.check not in kept:
                one.due = inf
            elif one.running:
                one.due, one.running = now, False  # its result goes to the Health that it was begun for
            one.turn = made._turn
        made._arm(now)
        made._judge()
        return made

    def app_ended(self, why: str) -> None:
        self._up = False
        self._turn += 1
        for one in self.checks:
            one.due, one.running, one.turn = inf, False, self._turn
        self.ready, self.why = False, why

    def wake_at(self) -> float:
        """When something is due next; infinite: nothing is, before a result comes."""
        return min((one.due for one in self.checks if not one.running), default=inf)

    def due(self, now: float) -> list[CheckState]:
        """What is to be run now; each runs once at a time."""
        found = [one for one in self.checks if not one.running and one.due <= now]
        for one in found:
            one.running, one.began = True, now
        return found

    def done(self, one: CheckState, turn: int, passed: bool, output: str, now: float, wall: float, draw: float) -> bool:
        """A result; whether anything changed for others. `turn`: of the state when it was begun."""
        if turn != one.turn or not self._up:
            return False
        check = one.check
        one.running = False
        one.output, one.at, one.took_s = output[:OUTPUT_MOST], wall, now - one.began
        one.runs += 1
        one.failures += not passed
        one.due = max(now, one.began + check.period_s * (1 + JITTER * (draw - 0.5)))
        if not passed and one.last is None and now - self._started_at < check.grace_s:
            return False  # not healthy yet, and given time
        one.run = one.run + 1 if one.last is passed else 1
        one.last = passed
        enough = one.run >= (check.success_threshold if passed else check.failure_threshold)
        if enough and one.passing is not passed:
            one.passing = passed
            one.why = "" if passed else one.output.strip()[:WHY_MOST] or "failed without output"
            if passed and check.purpose == "startup":
                one.due = inf
                self._arm(now)
        before = (self.ready, self.why, self.doomed)
        self._judge()
        return (self.ready, self.why, self.doomed) != before

    def _arm(self, now: float) -> None:
        """Let begin what may: startup checks first, the others when these have passed."""
        begun = all(one.passing for one in self.checks if one.check.purpose == "startup")
        for one in self.checks:
            if one.due == inf and not one.running and (one.check.purpose == "startup") != begun:
                one.due = max(now, self._started_at + one.check.initial_delay_s)

    def _judge(self) -> None:
        failing = [one for one in self.checks if one.passing is False]
        waiting = [one for one in self.checks if one.passing is None]
        if not self._up:
            return
        self.doomed = next((said(one) for one in failing if one.check.purpose in ("liveness", "startup")), "")
        worst = next((one for purpose in ("startup", "liveness", "readiness")
                      for one in failing if one.check.purpose == purpose), None)  # fmt: skip
        if worst is not None:
            self.ready, self.why = False, said(worst)
        elif waiting:
            first = next((one for one in waiting if one.check.purpose == "startup"), waiting[0])
            self.ready, self.why = False, f"{first.check.label} has not passed yet"
        else:
            self.ready, self.why = True, ""


def said(one: CheckState) -> str:
    """A failing check in one line."""
    return f"{one.check.label}: {' '.join(one.why.split())}"


def described(health: Health, now: float) -> list[dict[str, object]]:
    """Each check with its last result, for people and programs; `now` in Unix seconds."""
    return [
        {
            "check": one.check.label,
            "purpose": one.check.purpose,
            "kind": one.check.kind,
            "state": "passing" if one.passing else "failing" if one.passing is False else "waiting",
            "output": one.output,
            "age_s": round(max(0.0, now - one.at), 1) if one.at else None,
            "took_s": round(one.took_s, 4),
            "in_a_row": one.run,
            "runs": one.runs,
            "failures": one.failures,
            "period_s": one.check.period_s,
            "timeout_s": one.check.timeout_s,
            "success_threshold": one.check.success_threshold,
            "failure_threshold": one.check.failure_threshold,
        }
        for one in health.checks
    ]
