"""The length limit of labels: texts from outside that are kept, such as names, ids, branches and reasons."""

from __future__ import annotations

from cmemu_nb.errors import InvalidRequest

MAX_LABEL_BYTES = 4096


def size_of(text: str | None) -> int:
    """Return the number of bytes of a text in UTF-8; 0 for None."""
    if text is None:
        return 0
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def check_label(what: str, text: str | None, most: int) -> None:
    """Raise `InvalidRequest` for a text of more than `most` bytes, which is the setting `max_label_bytes`."""
    size = size_of(text)
    if size > most:
        raise InvalidRequest(
            f"The {what} has {size:,} bytes, and max_label_bytes allows {most:,}. Use a shorter one, or start the "
            "emulator with a larger max_label_bytes."
        )


def shortened(text: str, most: int) -> str:
    """Return a text; if it has more than `most` bytes, return its beginning with a note of its size."""
    size = size_of(text)
    if size <= most:
        return text
    beginning = text[:most].encode(errors="surrogatepass")[:most].decode(errors="ignore")
    return f"{beginning}… (the first {most:,} of {size:,} bytes)"
