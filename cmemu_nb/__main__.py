"""`python -m cmemu_nb` is the same as `cmemu`."""

import sys

from cmemu_nb.cli import main

sys.exit(main())
