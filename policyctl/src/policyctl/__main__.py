"""`python -m policyctl`, the same as the command `policyctl`."""

import sys

from policyctl.cli import main

sys.exit(main())
