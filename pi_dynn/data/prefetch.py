"""Loading of images in the background while the network works on earlier ones."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pi_dynn.errors import InputError

if TYPE_CHECKING:
    from pi_dynn.data.preprocess import AnyImage

Key = TypeVar("Key")
Image = TypeVar("Image")
Loaded = TypeVar("Loaded")


@overload
def prefetch(
    images: Iterable[tuple[Key, "AnyImage | InputError"]], load: Callable[["AnyImage"], Loaded], ahead: int = 3
) -> Iterator[tuple[Key, Loaded | InputError]]: ...


@overload
def prefetch(
    images: Iterable[tuple[Key, Image]], load: Callable[[Image], Loaded], ahead: int = 3
) -> Iterator[tuple[Key, Loaded | InputError]]: ...


def prefetch(
    images: Iterable[tuple[Key, Any]], load: Callable[[Any], Loaded], ahead: int = 3
) -> Iterator[tuple[Key, Loaded | InputError]]:
    """Each key with the result of `load` for its image, or the InputError it raised; order is kept.

    An InputError in place of an image is passed on. At most `ahead` images are loaded or waiting, so memory does not
    grow with their number.
    """

    def attempt(image: Any) -> Loaded | InputError:
        if isinstance(image, InputError):
            return image
        try:
            return load(image)
        except InputError as error:
            return error

    waiting: deque[tuple[Key, Future[Loaded | InputError]]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as pool:
        try:
            for key, image in images:
                waiting.append((key, pool.submit(attempt, image)))
                if len(waiting) >= ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
