"""The command line: builds sessions, meters and clocks, runs jobs, prints reports."""
