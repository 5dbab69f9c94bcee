"""python run.py task=mri method=aseqdip accel=8"""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a Ctrl-C while importing leaves no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    from aseqdip.cli import main

    main()
except ModuleNotFoundError as missing:
    if missing.name not in ("hydra", "numpy", "omegaconf", "torch"):
        raise
    sys.exit(f"{sys.executable} has no module {missing.name}: `make setup`, then `source .venv/bin/activate`.")
