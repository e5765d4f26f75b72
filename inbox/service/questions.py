"""Questions that may hang, as those to a database or a network volume may: they are answered in time all the same."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from inbox.core.errors import WorkerError, describe_error


class Question:
    """
    Asks how a part fares, in a thread of its own.

    While one is unanswered no other is asked beside it, since each may hold a connection for as long as it hangs.
    """

    def __init__(self, name: str, ask: Callable[[], object]) -> None:
        self._name = name
        self._ask = ask
        self._lock = threading.Lock()
        self._answer: Future[str | None] | None = None

    def put(self) -> Future[str | None]:
        """Ask, unless that is still going on, and return the answer to come: what ails the part, None if nothing."""
        with self._lock:
            if self._answer is None or self._answer.done():
                answer: Future[str | None] = Future()
                threading.Thread(target=self._find_out, args=(answer,), name=self._name, daemon=True).start()
                self._answer = answer
            return self._answer

    def _find_out(self, answer: Future[str | None]) -> None:
        try:
            self._ask()
        except WorkerError as error:
            answer.set_result(describe_error(error))
        except BaseException as error:  # noqa: BLE001 - whoever waits for the answer is told
            answer.set_exception(error)
        else:
            answer.set_result(None)


def ailment(answer: Future[str | None], seconds: float) -> str | None:
    """Wait for so many seconds at the most, and return what ails the part; no answer in that time is an ailment."""
    try:
        return answer.result(seconds)
    except TimeoutError:
        return f"no answer within {seconds:g} s"
