"""Fits pieces of work into a few seconds, whatever the data and the machine.

Between pieces rows are saved, bars move and signals are answered.
"""

GROWTH = 4
"""Largest factor between one piece and the next."""


class Pace:
    """Chooses how much to do next, by how long the work before took::

        pace = Pace(seconds=2)
        while left:
            number = min(pace.number, left)
            began = time.time()
            work(number)
            pace.took(number, time.time() - began)

    Args:
        seconds: How long a piece should take.
        least: Smallest number of units of a piece; the first piece has so many.
        most: Largest number of units of a piece.
    """

    def __init__(self, seconds: float, least: int = 1, most: int = 1 << 30):
        self._seconds = seconds
        self._least = least
        self._most = most
        self.number = least
        """How many units to do next."""

    def took(self, number: int, seconds: float) -> None:
        """Learns how long a piece took.

        Args:
            number: Units of the piece; fewer than were due say nothing of more.
            seconds: The time that it took, compilation left out.
        """
        fitting = int(number * self._seconds / max(seconds, 1e-9))
        largest = min(self._most, GROWTH * max(number, self.number))
        self.number = max(self._least, min(fitting, largest))
