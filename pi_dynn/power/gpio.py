"""A GPIO line that is high during every trial, for an instrument that records it beside the power.

Needs gpiod, the extra [gpio].
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pi_dynn.errors import InputError, need_extra


@contextmanager
def trial_line(place: str) -> Iterator[Callable[[bool], None]]:
    """Yields a function that sets the line at `place`, such as /dev/gpiochip0:17, high or low; low at the end.

    Raises: InputError for another form of `place`, or a line that cannot be had.
    """
    chip, _, number = place.rpartition(":")
    if not chip or not number.isdigit():
        raise InputError(f"{place!r} is no GPIO line: give one such as /dev/gpiochip0:17")
    with need_extra("gpio", "a GPIO line"):
        import gpiod
        from gpiod.line import Direction, Value
    line = int(number)
    settings = gpiod.LineSettings(direction=Direction.OUTPUT, output_value=Value.INACTIVE)
    try:
        request = gpiod.request_lines(chip, consumer="pi_dynn", config={line: settings})
    except (OSError, ValueError) as error:
        raise InputError(f"{place}: {error}; see gpioinfo for the lines there are") from error
    try:
        yield lambda high: request.set_value(line, Value.ACTIVE if high else Value.INACTIVE)
    finally:
        request.set_value(line, Value.INACTIVE)
        request.release()
