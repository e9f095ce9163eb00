"""What a user must not write: mypy --strict finds each line that says so."""

from cmemu_nb import Emulator, Lifecycle  # wrong

emu = Emulator(port=0)
emu.open_runtime(1)  # wrong
number: int = emu.url  # wrong
emu.strat()  # wrong
emu.openapi("json")  # wrong
emu.call(1)  # wrong
emu.submit("f", branch=1)  # wrong
