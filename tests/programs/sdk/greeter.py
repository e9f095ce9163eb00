"""Greeter: a program with a command line, which runs its jobs in threads of one process."""

import argparse
from dataclasses import dataclass

from compute_modules import add_function, start_compute_module
from compute_modules.startup import ConcurrencyType

greeting = "hello"


@dataclass
class Person:
    name: str


def greet(context, event: Person) -> str:
    return f"{greeting} {event.name}"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--greeting", default=greeting)
    parser.add_argument("--processes", action="store_true")
    arguments = parser.parse_args(argv)
    globals()["greeting"] = arguments.greeting
    add_function(greet)
    kind = ConcurrencyType.PROCESS_POOL if arguments.processes else ConcurrencyType.THREAD_POOL
    start_compute_module(kind)


if __name__ == "__main__":
    main()
