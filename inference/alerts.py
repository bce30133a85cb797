"""When a number that is watched calls for somebody: with hysteresis, so that an alert does not flicker; with a snooze
that hides what is known, and never a worse one.

Pure: a state, a value and a time give the next state. Whoever watches keeps the state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

__all__ = ["Alert", "Limits", "snooze", "step"]


@dataclass(frozen=True)
class Limits:
    """Level k + 1 is raised as soon as the value reaches `raise_at[k]`, and cleared only after `clear_after` values in
    a row short of `clear_at[k]`. `falling`: low values are the bad ones.

    Raises ValueError where the levels are not in order, or one would clear where it is raised.
    """

    raise_at: tuple[float, ...]
    clear_at: tuple[float, ...]
    clear_after: int = 1
    falling: bool = False

    def __post_init__(self) -> None:
        sign = -1.0 if self.falling else 1.0
        up, down = [sign * v for v in self.raise_at], [sign * v for v in self.clear_at]
        if not up or len(up) != len(down) or self.clear_after < 1:
            raise ValueError("give as many levels to clear as to raise, and at least one value to clear after")
        if up != sorted(up) or down != sorted(down) or any(c > r for r, c in zip(up, down, strict=True)):
            raise ValueError("levels rise, and each is cleared short of where it is raised")

    def reached(self, value: float, at: tuple[float, ...]) -> int:
        """How many levels of `at` the value has reached."""
        return sum(value <= limit if self.falling else value >= limit for limit in at)


@dataclass(frozen=True)
class Alert:
    """`level` 0 is none. `short` counts the values in a row that would lower it. Until `quiet_until` (in the caller's
    time) levels up to `quiet_level` are not shown."""

    level: int = 0
    short: int = 0
    quiet_until: float = -math.inf
    quiet_level: int = 0

    def shown(self, now: float) -> bool:
        """Whether somebody should be called now."""
        return self.level > 0 and (now >= self.quiet_until or self.level > self.quiet_level)


def step(alert: Alert, value: float | None, now: float, limits: Limits) -> Alert:
    """The state after a value, or after none (None or NaN: what is not known neither raises nor clears)."""
    if now >= alert.quiet_until:
        alert = replace(alert, quiet_until=-math.inf, quiet_level=0)
    if value is None or math.isnan(value):
        return alert
    raised = limits.reached(value, limits.raise_at)
    if raised >= alert.level:
        return replace(alert, level=raised, short=0)
    held = max(limits.reached(value, limits.clear_at), raised)
    if held >= alert.level:
        return replace(alert, short=0)
    if alert.short + 1 < limits.clear_after:
        return replace(alert, short=alert.short + 1)
    return replace(alert, level=held, short=0)


def snooze(alert: Alert, now: float, for_how_long: float) -> Alert:
    """Not to be called again for the present level or a lesser one; a worse one is shown all the same.

    Raises ValueError for a time that is not positive and finite.
    """
    if not (0 < for_how_long < math.inf):
        raise ValueError(f"cannot be quiet for {for_how_long}")
    return replace(alert, quiet_until=now + for_how_long, quiet_level=alert.level)
