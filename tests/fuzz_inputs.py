"""What is put on the wire when the emulator is fuzzed: good bytes, mostly, and faults in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from client import CONTOUR, RESULT, RID, RUNTIMES, SUBMIT
from conftest import TOKEN
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

    Draw = Callable[[st.SearchStrategy[Any]], Any]

RUNTIME = f"{RUNTIMES}/fuzz"
SECRET = b"THE-MODULE-TOKEN"  # stands for the session's token until the bytes are sent
HEALTH = "/_emulate/health"


def post(target: str, body: bytes, token: str = "") -> bytes:
    auth = f"Module-Auth-Token: {token}" if token else f"Authorization: Bearer {TOKEN}"
    return f"POST {target} HTTP/1.1\r\nHost: localhost\r\n{auth}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


# Requests


SMUGGLED = post(f"{RUNTIME}/jobs", b'{"queryType": "smuggled"}')
JOB = b'{"queryType": "f", "query": {"x":  [1, "\xc3\xa9"]}}'
APP_JOB = b'{"deployedAppRid": "' + RID.encode() + b'", "queryType": "f", "query":  1e400 }'
ENDPOINTS: list[tuple[str, str, bytes]] = [
    ("POST", f"{RUNTIME}/jobs", JOB),
    ("POST", f"{RUNTIME}/jobs", JOB),
    ("POST", SUBMIT, APP_JOB),
    ("POST", SUBMIT, APP_JOB),
    ("POST", f"{RUNTIME}/jobs", b""),
    ("GET", f"{RUNTIME}/job", b""),
    ("GET", f"{RUNTIME}/jobs?limit=1", SMUGGLED),
    ("GET", HEALTH, SMUGGLED),
    ("HEAD", HEALTH, b""),
    ("POST", f"{RUNTIME}/schemas", b'[{"name": "f", "schema": 1}]'),
    ("POST", f"{RUNTIME}/results/unknown", SMUGGLED),
    ("GET", f"{RUNTIME}/jobs/unknown", b""),
    ("POST", RUNTIMES, b'{"runtimeId": "other"}'),
    ("PUT", RESULT, b'{"id": "unknown"}'),
    ("DELETE", f"{CONTOUR}/jobs", b'{"id": "unknown"}'),
    ("POST", "/nothing", SMUGGLED),
    ("BREW", f"{RUNTIME}/jobs", SMUGGLED),
]
FIELDS = [
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: Close",
    b"Connection: keep-alive, close",
    b"Expect: 100-continue",
    b"Expect: 200-ok",
    b"Host: localhost",
    b"host: 127.0.0.1:4000",
    b"Origin: http://localhost",
    b"Origin: null",
    b"Origin: http://\xe9",
    b"Prefer: respond-async",
    b"Content-Type: text/plain; charset=\xff",
    b"Content-Encoding: gzip",
    b"Upgrade: h2c",
    b"Trailer: X",
    b"X: \xc3\xa9\xff",
    b"X:",
    b"X:\t y \t",
    b"X: " + b"y" * 20_000,
    b"\r\n".join(b"X-%d: y" % n for n in range(300)),
    b"Module-Auth-Token: x",
    b"Authorization: Basic x",
    # No HTTP
    b"X : y",
    b"X: y\r\n folded",
    b" X: y",
    b"X",
    b": y",
    b"\xe9: y",
    b"X: \x00",
    b"X: \x7f",
    b"X: a\rb",
    b"Content-Length : 3",
    b"X: " + b"y" * 70_000,
]
LENGTHS = [b"0", b"1", b"+5", b"-1", b"0x5", b" 5", b"5 5", b"5_0", b"\xb2", b"", b"1e1", b"9" * 30, b"9" * 2000]
CODINGS = [
    *(b"chunked", b"Chunked", b"chunked ", b"\tchunked", b"xchunked", b"chunked, chunked", b"chunked;q=1", b"gzip"),
    *(b"gzip, chunked", b"chunked, identity", b"identity", b",chunked", b'"chunked"', b"chun\x00ked", b""),
]
VERSIONS = [b"HTTP/1.1"] * 20 + [
    b"HTTP/1.0",
    b"HTTP/1.0",
    b"HTTP/1.2",
    b"HTTP/2.0",
    b"HTTP/0.9",
    b"http/1.1",
    b"HTTP/1.",
]
INSERTS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b"\x00",
        b"\x0b",
        b"\xff",
        b"%",
        b"%00",
        b"%zz",
        b"0",
        b",",
        b";",
        b"\x85",
    ),
    *(b"\r\n\r\n", b"\n\n", b"\r\n ", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"//"),
]
rarely = st.sampled_from([False] * 9 + [True])


@st.composite
def chunked(draw: Draw, body: bytes) -> bytes:
    """Return a body in chunks, now and then with something in them that is refused."""
    data = b""
    while body:
        size = draw(st.integers(1, len(body)))
        data += _size(draw, size) + body[:size] + (b"\r\n" if not draw(rarely) else draw(st.sampled_from(INSERTS)))
        body = body[size:]
    trailer = draw(st.sampled_from([b""] * 6 + [b"X: y\r\n", b"Content-Length: 3\r\n", b"\n", b"X"]))
    whole: bytes = data + _size(draw, 0) + trailer + b"\r\n"
    return whole


def _size(draw: Draw, size: int) -> bytes:
    digits = draw(st.sampled_from([b"%x", b"%x", b"%X", b"0%x", b"000%X"])) % size
    if draw(rarely):
        forms = (
            b"0x%b",
            b" %b",
            b"%b ",
            b"+%b",
            b"-%b",
            b"%b;x=y",
            b"%b;\n",
            b"%b\n",
            b"\xb2%b",
            b"0" * 70 + b"%b",
            b"f%b",
        )
        digits = draw(st.sampled_from(forms)) % digits
    whole: bytes = digits + b"\r\n"
    return whole


@st.composite
def framed(draw: Draw, body: bytes) -> tuple[list[bytes], bytes]:
    """Return the fields that frame a body, and the body as it is sent; most of them right."""
    length = b"Content-Length: %d" % len(body)
    kind = draw(st.sampled_from(["length"] * 5 + ["chunked"] * 5 + ["none", "twice", "wrong", "both", "coding", "off"]))
    if kind == "chunked":
        return [b"Transfer-Encoding: chunked"], draw(chunked(body))
    if kind == "coding":
        return [b"Transfer-Encoding: " + draw(st.sampled_from(CODINGS))], draw(chunked(body))
    if kind == "both":
        fields = draw(st.permutations([b"Transfer-Encoding: " + draw(st.sampled_from(CODINGS)), length]))
        return list(fields), draw(st.sampled_from([body, draw(chunked(body))]))
    return draw(lengths(length, len(body))) if kind in ("twice", "wrong", "off") else [length][: kind == "length"], body


@st.composite
def lengths(draw: Draw, length: bytes, size: int) -> list[bytes]:
    """Return fields that say the length of a body twice, or wrong."""
    close = b"Content-Length: %d" % max(0, size + draw(st.integers(-30, 30)))
    other = draw(st.sampled_from([length, length + b", %d" % size, close, *(b"Content-Length: " + x for x in LENGTHS)]))
    fields: list[bytes] = draw(st.sampled_from([[length, other], [other, length], [other], [close]]))
    return fields


@st.composite
def requests(draw: Draw) -> bytes:
    method, target, body = draw(st.sampled_from(ENDPOINTS))
    framing, sent = draw(framed(body))
    auth = b"Module-Auth-Token: " + SECRET if target.endswith(("/job", "/schemas")) else b"Authorization: Bearer "
    fields = [b"Host: localhost", auth if auth.endswith(SECRET) else auth + TOKEN.encode(), *framing]
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        fields.insert(draw(st.integers(0, len(fields))), draw(st.sampled_from(FIELDS)))
    line = f"{method} {target} ".encode() + draw(st.sampled_from(VERSIONS))
    eol = b"\n" if draw(rarely) else b"\r\n"
    head: bytes = eol.join([line, *fields, b"", b""])
    whole: bytes = head + sent
    return whole


@st.composite
def mutated(draw: Draw, data: bytes) -> bytes:
    """Return bytes with a few faults in them, often none."""
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 3]))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["insert", "replace", "delete", "repeat", "cut"]))
        if kind == "cut":
            data = data[:at]
        elif kind == "insert":
            data = data[:at] + draw(st.sampled_from(INSERTS)) + data[at:]
        elif kind == "replace":
            data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
        else:
            end = at + draw(st.integers(1, 40))
            data = data[:at] + (data[at:end] * 2 if kind == "repeat" else b"") + data[end:]
    return data


@st.composite
def pieces(draw: Draw, data: bytes) -> list[bytes]:
    """Cut bytes into those that are sent at once."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=draw(st.sampled_from([0, 0, 1, 3])))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < end]


@st.composite
def pipelines(draw: Draw) -> list[bytes]:
    data = b"".join(draw(st.lists(requests(), min_size=1, max_size=4)))
    parts: list[bytes] = draw(pieces(draw(mutated(data))))
    return parts


# Paths


RUNTIME_IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8) | st.sampled_from(
    ["/", "%", "%2F", "a b", "..%2f", "?x", "#", "é", "😀", "\x00", "\r\n", "+", "\\", "job", "a;b", "\u2028", "\x85"]
)


@st.composite
def encoded(draw: Draw, text: str) -> bytes:
    """Return a path segment: each byte as it is, where it may stand so, or percent-encoded in either case."""
    segment = b""
    for byte in text.encode():
        may_stand = byte > 0x20 and byte != 0x7F and byte not in b"/?%"
        form = draw(st.sampled_from([b"%%%02X", b"%%%02x", *([b"%c"] * 3 if may_stand else [])]))
        segment += form % byte
    return segment


# JSON


NUMBERS = [b"0", b"-0", b"1e400", b"-1.50E-3", b"1.0", b"9" * 25, b"-" + b"9" * 5000, b"0.1e+5"]
CHARACTERS = [
    *(b"a", b" ", "é😀".encode(), b"\\u00E9", b"\\ud83d\\ude00", b"\\\\", b'\\"', b"\\/", b"\\n", b"\\u0000"),
    *(b"\x7f", "\u2028".encode(), b"</script>", b"{", b"]", b"\xef\xbb\xbf"),
]
SURROGATES = [b"\\ud800", b"\\udc00", b"\\ude00\\ud83d"]
spaces = st.sampled_from([b""] * 5 + [b" ", b"\r\n\t "])


@st.composite
def strings(draw: Draw, characters: list[bytes] = CHARACTERS) -> bytes:
    return b'"' + b"".join(draw(st.lists(st.sampled_from(characters), max_size=4))) + b'"'


@st.composite
def arrays(draw: Draw, inner: st.SearchStrategy[bytes]) -> bytes:
    items = draw(st.lists(inner, max_size=3))
    return b"[" + b",".join(draw(spaces) + item + draw(spaces) for item in items) + b"]"


@st.composite
def objects(draw: Draw, inner: st.SearchStrategy[bytes]) -> bytes:
    """Return an object, now and then with the same key twice."""
    keys = st.sampled_from([b'"a"', b'"name"', b'"schema"', b'""', b'"\\u0061"']) | strings()
    items = [(draw(keys), draw(inner)) for _ in range(draw(st.integers(0, 3)))]
    return b"{" + b",".join(draw(spaces) + key + draw(spaces) + b":" + value for key, value in items) + b"}"


scalars = st.sampled_from([*NUMBERS, b"null", b"true", b"false"]) | strings()
json_texts = st.recursive(scalars, lambda inner: arrays(inner) | objects(inner), max_leaves=8)
odd_texts = st.one_of(
    json_texts.flatmap(mutated),
    strings([*SURROGATES, b"a"]),
    st.sampled_from([b"NaN", b"Infinity", b"01", b"1.", b"+1", b"'a'", b"[1,]", b"", b"// x", b"\xed\xa0\x80", b"1 2"]),
    st.sampled_from([50, 500, 900, 1020, 5000]).map(lambda deep: b"[" * deep + b"]" * deep),
    st.sampled_from([50, 500, 900, 1020, 5000]).map(lambda deep: b'{"a":' * deep + b"1" + b"}" * deep),
)


# Schemas


names = st.sampled_from(["f", "g", "é", "a b", "functions ", "x/y", "<b>", '"', "\\"]) | st.text(
    st.characters(codec="utf-8"), min_size=1, max_size=5
).map(lambda text: text + "!")


@st.composite
def entries(draw: Draw) -> tuple[bytes, str, bytes]:
    """Return one named object with the name and the payload that it says."""
    name = draw(names)
    members = [(draw(st.sampled_from(["functionName", "function_name", "name"])), dumped(draw, name))]
    payload = draw(json_texts)
    keyed = draw(st.sampled_from(["schema", "schemaPayload", None]))
    members.append((keyed or "inputs", payload))
    members += draw(st.sampled_from([[], [("output", b"{}")]]))
    text = (
        b"{"
        + b",".join(b'"%b": %b%b' % (k.encode(), v, draw(spaces)) for k, v in draw(st.permutations(members)))
        + b"}"
    )
    return text, name, payload if keyed else text


def dumped(draw: Draw, name: str) -> bytes:
    return json.dumps(name, ensure_ascii=draw(st.booleans())).encode()


@st.composite
def schema_bodies(draw: Draw) -> tuple[bytes, dict[str, bytes]]:
    """Return a body in any of the accepted formats, with the payloads by name."""
    kind = draw(st.sampled_from(["array", "functions", "schemas", "nested", "bare", "map"]))
    if kind == "map":
        stored = draw(st.dictionaries(names, json_texts, max_size=3))
        return b"{" + b", ".join(dumped(draw, n) + b":" + p + draw(spaces) for n, p in stored.items()) + b"}", stored
    listed = draw(st.lists(entries(), min_size=1, max_size=1 if kind == "bare" else 3))
    stored = {name: payload for _, name, payload in listed}
    if kind == "bare":
        return listed[0][0], stored
    array = b"[" + b",".join(draw(spaces) + text + draw(spaces) for text, _, _ in listed) + b"]"
    if kind == "nested":
        deep = draw(st.integers(1, 19))
        return b"[" * deep + array + b", []" + b"]" * deep, stored
    return (array if kind == "array" else b'{"%b": %b}' % (kind.encode(), array)), stored
