"""From a training form to the network a Pi runs: small rewrites `module -> module`, then a bundle."""
