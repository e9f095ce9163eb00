"""What a notebook sees of the emulator: magics, and objects that show themselves as HTML."""
