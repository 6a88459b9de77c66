"""Reports of saved runs: tables, plots or one page."""
