"""`python -m rheostat.cli`, for where the script `rheostat` is not on the path."""

from rheostat.cli import main

main()
