"""`python -m pi_dynn.cli`."""

from pi_dynn.cli.main import main

main()
