"""The INA219 current monitor: its registers, settings and driver, and the buses that lead to it."""
