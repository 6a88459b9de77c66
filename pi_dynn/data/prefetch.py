"""Images loaded in the background while the network works on those before."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pi_dynn.errors import InputError

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def prefetch(
    items: Iterable[Item], load: Callable[[Item], Loaded], ahead: int = 3
) -> Iterator[tuple[Item, Loaded | InputError]]:
    """Each item with what `load` made of it, or the InputError it raised; order is kept.

    At most `ahead` items are loaded or waiting, so memory stays flat however many there are.
    """

    def attempt(item: Item) -> Loaded | InputError:
        try:
            return load(item)
        except InputError as error:
            return error

    waiting: deque[tuple[Item, Future]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(attempt, item)))
                if len(waiting) >= ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
