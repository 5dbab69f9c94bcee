"""python run.py task=mri method=aseqdip accel=8"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a Ctrl-C while importing leaves no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from aseqdip.cli import main  # noqa: E402

main()
