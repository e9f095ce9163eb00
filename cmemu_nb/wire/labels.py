"""Labels: texts from outside that are kept, such as names, ids, branches and reasons, and what they may be."""

from __future__ import annotations

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.phrases import abbreviated

MAX_LABEL_BYTES = 4096
MAX_ID_CHARACTERS = 1000


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


def checked_text(what: str, value: object) -> str:
    """Return a value that must be text which JSON can hold. Raises `InvalidRequest` for anything else."""
    try:
        if isinstance(value, str):
            value.encode()
            return value
    except UnicodeEncodeError:
        pass
    raise InvalidRequest(f"The {what} must be text, not {abbreviated(value)}.")


def checked_runtime_id(value: str) -> str:
    """Return a runtime id without surrounding spaces. Raises `InvalidRequest` if it is blank or can't be in a URI."""
    runtime_id = trimmed("runtime id", value) or ""
    if runtime_id in ("", ".", ".."):
        raise InvalidRequest(f"Opening a runtime session: {runtime_id!r} can't be a runtime id. Choose a name.")
    if len(runtime_id) > MAX_ID_CHARACTERS:
        raise InvalidRequest(
            f"Opening a runtime session: the runtime id has {len(runtime_id)} characters, which no URI can hold. "
            f"Choose one of at most {MAX_ID_CHARACTERS}."
        )
    return runtime_id


def trimmed(what: str, value: str | None) -> str | None:
    """Return an optional text without surrounding spaces; None if it is blank."""
    return None if value is None else checked_text(what, value).strip() or None
