"""What an answer costs in energy: protocol, measuring, results, saved runs, how they read."""
