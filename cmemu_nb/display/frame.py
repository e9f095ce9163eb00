"""The DataFrame of an emulator's views: it behaves like any other, but a notebook shows it in abbreviated form."""

from __future__ import annotations

from typing import Any

import pandas as pd


class Frame(pd.DataFrame):
    """A DataFrame of records. A notebook abbreviates it, and frames derived from it that have the same columns.

    It is pickled as a plain `DataFrame`, which can be read where cmemu_nb is not installed.
    """

    @property
    def _constructor(self) -> type[Frame]:
        return Frame

    def _repr_html_(self) -> str | None:
        from cmemu_nb.display.short_frames import short_frame  # noqa: PLC0415 - only a notebook needs it

        in_short = short_frame(self) if pd.get_option("display.notebook_repr_html") else None
        # The stubs of pandas lack this method.
        return super()._repr_html_() if in_short is None else in_short  # type: ignore[misc]

    def __reduce_ex__(self, _: Any) -> Any:
        return pd.DataFrame, (pd.DataFrame(self),)
