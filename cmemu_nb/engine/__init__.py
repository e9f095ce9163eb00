"""The engine of an emulator: it starts and stops the sockets, servers, event loop, log filter, listeners and faults."""
