"""`python -m verger`."""

from verger.cli.main import main

main()
