"""The parts that an emulator runs on: its sockets, its identity, its log filter, its listeners, its faults."""
