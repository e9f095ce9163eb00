"""A compute module that speaks as programs with the Java SDK do: `new` as its newest version, `old` as version 0.1.0.

`bare` is `old` without a token.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

OLD = sys.argv[1] != "new"
# Each of Java's requests offers HTTP/2.
HEADERS = {
    "Connection": "Upgrade, HTTP2-Settings",
    "Upgrade": "h2c",
    "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    "User-Agent": "Java-http-client/21.0.2",
}
FIXED = f"http://127.0.0.1:{os.environ.get('FIXED_PORT', 8946)}"
STRING = {"type": "string", "string": {}}
UNKNOWN = {"type": "unknown", "unknown": {}}
INPUT = {"description": None, "required": True, "defaultValue": None, "constraints": []}
SCHEMAS = [
    *(
        {
            "functionName": name,
            "inputs": [],
            "output": {"type": "single", "single": {"description": None, "dataType": STRING}},
            "issues": ["CANNOT_PARSE_INPUTS"],
        }
        for name in ("hello", "fail")
    ),
    {
        "functionName": "add",
        "inputs": [{**INPUT, "name": name, "dataType": {"type": "integer", "integer": {}}} for name in "xy"],
        "output": {"type": "single", "single": {"description": None, "dataType": UNKNOWN}},
        "issues": ["CANNOT_PARSE_OUTPUT"],
    },
]

TRACE = """java.lang.IllegalStateException: it failed
\tat App.fail(App.java:12)
\tat com.palantir.computemodules.functions.FunctionRunner.run(FunctionRunner.java:48)
\tat java.base/java.lang.Thread.run(Thread.java:840)
Caused by: java.lang.ArithmeticException: / by zero
\tat App.divide(App.java:20)
\t... 2 more
"""

if sys.argv[1] == "old":
    HEADERS["Module-Auth-Token"] = Path(os.environ["MODULE_AUTH_TOKEN"]).read_text()
if OLD:
    GET_JOB, POST_RESULT = f"{FIXED}/job", f"{FIXED}/results"
else:
    GET_JOB, POST_RESULT = os.environ["GET_JOB_URI_V2"], os.environ["POST_RESULT_URI_V2"]


def send(method: str, url: str, body: Any = None) -> tuple[int, str]:
    """Send a request, its body in chunks if it is an iterator, and return the status and the text of the answer."""
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=60)
    headers = {**HEADERS, "Content-Type": "application/octet-stream"} if method == "POST" else HEADERS
    try:
        connection.request(method, address.path, body, headers, encode_chunked=isinstance(body, Iterator))
        answer: HTTPResponse = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def chunks(query: Any) -> Iterator[bytes]:
    """What a function sends that returns an InputStream: a beginning, and the rest when a file is there."""
    yield b'{"beginning": 1, '
    wait(query)
    yield b'"rest": [2]}'


def wait(query: Any) -> None:
    while not Path(query["until"]).exists():
        time.sleep(0.01)


def function_result(query_type: str, query: Any) -> Any:
    if query_type == "add":
        return query["x"] + query["y"]
    if query_type == "pid":
        return os.getpid()
    if query_type == "large":
        return "x" * query["size"]
    if query_type == "wait":
        wait(query)
    if query_type == "exit":
        os._exit(1)
    if query_type == "fail":
        raise RuntimeError
    return f"hello {query}"


def result_of(job: Any) -> bytes | Iterator[bytes]:
    if job["queryType"] == "chunks":
        return chunks(job["query"])
    try:
        result = json.dumps(function_result(job["queryType"], job["query"])).encode()
    except RuntimeError:
        result = f"JobId: {job['jobId']}\n{TRACE}".encode()
    return iter([result[:10], result[10:]]) if OLD else result


def run(job: Any) -> None:
    url, result = f"{POST_RESULT}/{job['jobId']}", result_of(job)
    if OLD:
        print("result:", *send("POST", url, result), flush=True)
        return
    body = b"".join(result) if isinstance(result, Iterator) else result
    if not any(posted(url, body) for _ in range(5)):
        posted(url, b"Failed to post result, statusCode: 413")


def posted(url: str, body: bytes) -> bool:
    status, _ = send("POST", url, body)
    print("result:", status, flush=True)
    return 200 <= status < 300


def report_restart() -> None:
    for _ in range(5):
        try:
            status, jobs = send("POST", f"{FIXED}/restart-notify", b"")
        except OSError as error:
            print("restart:", error, flush=True)
        else:
            print("restart:", status, jobs, flush=True)
            if status == 200:
                return
        time.sleep(0.1)


def poll() -> None:
    try:
        status, text = send("GET", GET_JOB)
    except (OSError, HTTPException) as error:
        print("poll:", error, flush=True)
        time.sleep(0.1)
        return
    if status == 200:
        threading.Thread(target=run, args=[json.loads(text)]).start()
    elif status != 204:
        print("poll:", status, flush=True)
        time.sleep(1)


if not OLD:
    report_restart()
    send("POST", os.environ["POST_SCHEMA_URI_V2"], json.dumps(SCHEMAS).encode())
while True:
    poll()
