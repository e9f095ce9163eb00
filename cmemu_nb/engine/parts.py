"""The parts of an emulator beside its servers, such as the functions that it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Part(ABC):
    """Something that works while the emulator runs. Both methods are called on the emulator's loop."""

    async def started(self) -> None:  # noqa: B027 - most parts wait until they are used
        """Begin to work: the emulator answers requests from now on."""

    @abstractmethod
    async def stopping(self, reason: str) -> None:
        """End, while the emulator still answers; `reason` is why the jobs fail that it ends."""
