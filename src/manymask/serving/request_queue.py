"""The line in front of the model: one drawing at a time, in the order of arrival. No Gradio in here."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from manymask.errors import InputError, ManymaskError

FAREWELL = "the server is closing; try again later"
SILENCE = 30.0  # seconds after which a caller who never asked for the answer counts as gone
LAST = 5.0  # seconds that a drawing has to end once it must


class StoppedError(ManymaskError):
    """The visitor wants no more masks; those that are there count."""


class LeftError(ManymaskError):
    """Nobody waits for this drawing any more."""


class Ticket:
    """A place in the line. `check` ends a drawing that nobody waits for any more.

    heard: whether the caller is known to listen; a caller who does not begin to within `SILENCE` has left.
    """

    def __init__(self, line: "RequestQueue", visit: str, client: str, heard: bool = True) -> None:
        self.visit, self.client, self.heard = visit, client, heard
        self._line = line
        self.came = time.monotonic()
        self.first: float | None = None  # when nobody was before it any more
        self._ended: ManymaskError | None = None

    @property
    def ended(self) -> bool:
        """Whether the next `check` raises."""
        return self._ended is not None or (not self.heard and time.monotonic() - self.came > SILENCE)

    def check(self) -> None:
        """`StoppedError`, `LeftError`, or another `InputError` when the server is closing."""
        if self.ended:
            raise self._ended or LeftError("stopped: nobody asked for the answer")

    def check_left(self) -> None:
        """`LeftError` if nobody waits any more; not for a visitor who stopped."""
        if isinstance(self._ended, LeftError):
            raise self._ended

    def end(self, error: ManymaskError) -> None:
        """The next `check` raises `error`."""
        self._ended = self._ended or error

    def ahead(self, seconds: float = 0.0) -> int:
        """How many drawings come first; waits up to `seconds` for that to change."""
        return self._line.ahead(self, seconds)

    def step_back(self) -> None:
        """Lets all others go first who are in the line now."""
        self._line.step_back(self)

    def wait(self) -> None:
        """Returns when this ticket is the first; `InputError` as in `check`."""
        while self.ahead(1.0):
            self.check()
        self.check()


class RequestQueue:
    """At most `longest` wait behind the drawing in progress, at most `each` drawings belong to one client.

    ended: called when a place is given up, with its ticket and whether it was `answered`, has `failed` or was `left`; with
    None and `refused` where there was no place.
    """

    def __init__(self, longest: int, each: int) -> None:
        self.longest, self.each = longest, each
        self.ended: Callable[[Ticket | None, str], None] = lambda ticket, outcome: None
        self._tickets: list[Ticket] = []
        self._moved = threading.Condition()
        self._since: float | None = None  # when the first drawing became the first
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether no more drawings are taken."""
        return self._closed

    def __len__(self) -> int:
        return len(self._tickets)

    def busy(self) -> float:
        """Seconds since the drawing in progress, or the image of a list, began; 0 if there is none."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    @contextmanager
    def place(self, visit: str, client: str, heard: bool = True) -> Iterator[Ticket]:
        """A place at the end of the line, given up at the end of the block. `InputError` where there is none."""
        ticket, outcome = Ticket(self, visit, client, heard), "answered"
        with self._moved:
            self._check_room(client)
            self._tickets.append(ticket)
            self._advance(len(self._tickets) == 1)
        try:
            yield ticket
        except (LeftError, StoppedError, GeneratorExit):
            outcome = "left"
            raise
        except BaseException:
            outcome = "failed"
            raise
        finally:
            with self._moved:
                first = self._tickets[0] is ticket
                self._tickets.remove(ticket)
                self._advance(first)
            self.ended(ticket, outcome)

    def _advance(self, moved: bool) -> None:
        """Notes who is the first now, if that has changed, and wakes those who wait."""
        if moved:
            self._since = time.monotonic() if self._tickets else None
            if self._tickets and self._tickets[0].first is None:
                self._tickets[0].first = self._since
        self._moved.notify_all()

    def _check_room(self, client: str) -> None:
        refusal = self._refusal(client)
        if refusal:
            self.ended(None, "refused")
            raise InputError(refusal)

    def _refusal(self, client: str) -> str | None:
        if self._closed:
            return FAREWELL
        if len(self._tickets) > self.longest:
            return f"the queue is full: {self.longest} are waiting; try again in a minute"
        if sum(ticket.client == client for ticket in self._tickets) >= self.each:
            return f"{self.each} drawings of yours are in the queue, which is full for you: wait for one of them"
        return None

    def ahead(self, ticket: Ticket, seconds: float) -> int:
        """See `Ticket.ahead`."""
        with self._moved:
            before = self._tickets.index(ticket)
            if before and seconds:
                self._moved.wait_for(lambda: self._tickets.index(ticket) != before or ticket.ended, seconds)
            return self._tickets.index(ticket)

    def step_back(self, ticket: Ticket) -> None:
        """See `Ticket.step_back`. A list goes no further once the line is closed."""
        with self._moved:
            first = self._tickets[0] is ticket
            self._tickets.remove(ticket)
            self._tickets.append(ticket)
            if self._closed:
                ticket.end(InputError(FAREWELL))
            self._advance(first)

    def listen(self, visit: str) -> None:
        """The caller of this visit listens for the answer."""
        with self._moved:
            for ticket in self._tickets:
                ticket.heard = ticket.heard or ticket.visit == visit

    def stop(self, visit: str) -> None:
        """Ends what a visitor has in the line, who keeps the masks that are there."""
        self._end(StoppedError("stopped"), visit)

    def leave(self, visit: str) -> None:
        """Ends what a visitor has in the line, who has gone or wants something else."""
        self._end(LeftError("stopped: the caller has left"), visit)

    def _end(self, error: ManymaskError, visit: str | None = None) -> None:
        with self._moved:
            for ticket in self._tickets:
                if visit is None or ticket.visit == visit:
                    ticket.end(error)
            self._moved.notify_all()

    def close(self, patience: float) -> bool:
        """Takes no more drawings and ends those that wait. The one in progress may finish, and is ended after `patience`
        seconds; whether all of them had ended at last."""
        with self._moved:
            self._closed = True
            for ticket in self._tickets[1:]:
                ticket.end(InputError(FAREWELL))
            self._moved.notify_all()
            if self._moved.wait_for(lambda: not self._tickets, patience):
                return True
        self.end_all()
        with self._moved:
            return self._moved.wait_for(lambda: not self._tickets, LAST)

    def end_all(self) -> None:
        """Ends every drawing, the one in progress too."""
        self._end(InputError(FAREWELL))
