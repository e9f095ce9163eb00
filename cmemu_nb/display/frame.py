"""The DataFrame that the views of an emulator are: pandas' own in all it does, but shown in short in a notebook."""

from __future__ import annotations

from typing import Any

import pandas as pd


class Frame(pd.DataFrame):
    """A frame of records. What is made of it is one too, shown in short while it has all columns and no others.

    Pickled it is a plain `DataFrame`, which can be read where there is no cmemu_nb.
    """

    @property
    def _constructor(self) -> type[Frame]:
        return Frame

    def _repr_html_(self) -> str | None:
        from cmemu_nb.display.short_frames import short_frame  # noqa: PLC0415 - only a notebook wants it

        in_short = short_frame(self) if pd.get_option("display.notebook_repr_html") else None
        # pandas' stubs do not have the method.
        return super()._repr_html_() if in_short is None else in_short  # type: ignore[misc]

    def __reduce_ex__(self, _: Any) -> Any:
        return pd.DataFrame, (pd.DataFrame(self),)
