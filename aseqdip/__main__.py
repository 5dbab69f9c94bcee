"""python -m aseqdip"""

from aseqdip.cli import main

main()
