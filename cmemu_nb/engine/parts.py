"""The base class of the parts that start and stop with an emulator, such as the functions that it serves."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Part(ABC):
    """Something that is active while the emulator runs. Both methods are called on the emulator's loop."""

    async def started(self) -> None:  # noqa: B027 - most parts do nothing until they are used
        """Start: the emulator now answers requests."""

    @abstractmethod
    async def stopping(self, reason: str) -> None:
        """Stop, while the emulator still answers requests; `reason` is the error of the jobs that fail by this."""
