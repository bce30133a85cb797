"""The device's clock where no time server is in reach: a worker who looks at it may say that it is right."""

from __future__ import annotations

from aidpost.sync.clock import SystemClock


class ConfirmedClock(SystemClock):
    """The board's clock; taken for set once a worker confirmed date and time at unlocking, until the next start."""

    confirmed = False

    def confirm(self) -> None:
        """A worker compared it with a watch."""
        self.confirmed = True

    def synced(self) -> bool:
        """Whether a time server or a worker vouches for it."""
        return self.confirmed or super().synced()
