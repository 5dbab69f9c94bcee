"""python run.py task=mri method=aseqdip accel=8"""

from aseqdip.cli import main

main()
