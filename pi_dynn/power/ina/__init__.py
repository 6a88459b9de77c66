"""Current monitors of the INA2xx family: their registers, settings and drivers, and the buses that lead to them."""
