"""The bus to the simulated chip, with transfer times and faults."""

import errno
from collections.abc import Callable

from pi_dynn.clock import Clock
from pi_dynn.power.fake.chip import Ina219Chip
from pi_dynn.power.fake.ina226_chip import Ina226Chip
from pi_dynn.power.fake.ina228_chip import Ina228Chip

TRANSFER_400_KHZ_S = 48 / 400e3
"""One register read is 48 bit times: address, pointer, address, two bytes, and the bits between."""


class FakeBus:
    """A simulated I2C bus to one chip, with the methods of the real one. Transfers are counted from 0.

    Faults: from transfer `nack_from` on the chip does not acknowledge; `fails(transfer)` returns the errno of a
    transfer that fails, or 0. Each transfer takes `transfer_s` on the clock.
    """

    name = "simulated I2C bus"

    def __init__(
        self,
        chip: Ina219Chip | Ina226Chip | Ina228Chip,
        clock: Clock,
        *,
        transfer_s: float = 0.0,
        nack_from: int | None = None,
        fails: Callable[[int], int] | None = None,
    ) -> None:
        self.chip = chip
        self.clock = clock
        self.transfer_s = transfer_s
        self.nack_from = nack_from
        self.fails = fails
        self.transfers = 0
        self.closed = False

    def unplug(self) -> None:
        """Make every transfer fail from now on."""
        self.nack_from = self.transfers

    def read_word(self, register: int) -> int:
        self._transfer()
        return self.chip.read_word(register)

    def read_bytes(self, register: int, count: int) -> bytes:
        self._transfer()
        if not isinstance(self.chip, Ina228Chip):
            raise OSError(errno.EREMOTEIO, "a chip with 16-bit registers only")
        return self.chip.read_bytes(register, count)

    def write_word(self, register: int, value: int) -> None:
        self._transfer()
        self.chip.write_word(register, value)

    def close(self) -> None:
        self.closed = True

    def _transfer(self) -> None:
        number = self.transfers
        self.transfers += 1
        if self.transfer_s:
            self.clock.sleep(self.transfer_s)
        code = errno.EREMOTEIO if self.nack_from is not None and number >= self.nack_from else 0
        code = code or (self.fails(number) if self.fails else 0)
        if code:
            raise OSError(code, "no acknowledge")
