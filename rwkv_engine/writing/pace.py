"""How many tokens it pays to draft: by how often drafts were right, and by what passes were measured to take."""

from rwkv_engine.numbers.shapes import ALIKE, CHUNK

#: most tokens of a pass with drafts, so that its numbers are those of single tokens
LONGEST = ALIKE
#: share of the time that wrong drafts may take, and, as a part of a single token's pass, what they may take
#: before that
LOSS, CREDIT = 0.012, 0.5
#: how much faster a pass with drafts must promise to be
GAIN = 1.03
#: part of what was seen that is left after each draft of a kind, and after each one that was not made
FADING, FORGETTING = 0.9, 0.985


class Costs:
    """Seconds of a pass by its number of tokens, as they were measured on the way.

    Texts of one model share them.
    """

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds = [0.0] * (CHUNK + 1)

    def add(self, tokens: int, seconds: float) -> None:
        """A pass of so many tokens, at most CHUNK, took so long."""
        known, guess = self._seconds[tokens], self.of(tokens)
        if guess and seconds >= guess:  # what is too slow was most often disturbed, and counts little
            seconds = guess + 0.1 * (min(seconds, 2 * guess) - guess)
        elif known:
            seconds = (known + seconds) / 2
        self._seconds[tokens] = seconds
        for fewer in range(1, tokens):  # a shorter pass takes no longer
            self._seconds[fewer] = min(self._seconds[fewer], seconds)

    def of(self, tokens: int) -> float:
        """What a pass of so many tokens takes: measured, between two that were, or guessed; 0 if none was
        measured yet.
        """
        seconds = self._seconds
        if seconds[tokens]:
            return seconds[tokens]
        below = next((n for n in range(tokens, 0, -1) if seconds[n]), 0)
        above = next((n for n in range(tokens, CHUNK + 1) if seconds[n]), 0)
        if not below:
            return seconds[above]
        if not above:
            return seconds[below] * (1 + (tokens - below) / (4 * below))
        share = (tokens - below) / (above - below)
        return seconds[below] + share * (max(seconds[above], seconds[below]) - seconds[below])


class Pace:
    """Decides for one text how many tokens are drafted.

    What drafts cost is kept below LOSS of the time, whatever the text.

    kinds  of drafts, which differ in how often they are right.
    first  for each kind the share of its tokens that is taken to be right before any was seen.
    """

    __slots__ = ("_balance", "_first", "_rest", "_right", "_seen", "_spent", "_tried", "costs")

    def __init__(self, costs: Costs, first: tuple[float, ...]) -> None:
        self.costs, self._first = costs, first
        self._right, self._seen = [0.0] * len(first), [0.0] * len(first)
        self._balance = self._spent = 0.0
        self._rest = False  # whether the next pass has no drafts, so that single tokens are measured too
        self._tried = -1.0  # seconds that drafting one token takes; 0: unknown; -1: none was drafted

    def fork(self) -> "Pace":
        """A copy that learns by itself."""
        twin = Pace(self.costs, self._first)
        twin._right, twin._seen = list(self._right), list(self._seen)
        twin._balance, twin._spent, twin._tried = self._balance, self._spent, self._tried
        return twin

    def length(self, kind: int, most: int, beside: int) -> int:
        """How many tokens to draft, from 0 to `most`, if a pass has `beside` tokens besides the draft's."""
        if self._rest:
            self._rest = False
            return 0
        one = self.costs.of(beside)
        best, length = GAIN / one * beside if one else 0.0, 0
        if one and self._balance > -(LOSS * self._spent + CREDIT * one):
            right = self.right(kind)
            written, chance = float(beside), 1.0
            for count in range(1, most + 1):
                chance *= right
                written += chance
                speed = written / (self.costs.of(beside + count) + count * max(self._tried, 0.0))
                if speed > best:
                    best, length = speed, count
        if not length:
            self._right[kind] *= FORGETTING
            self._seen[kind] *= FORGETTING
        return length

    def right(self, kind: int) -> float:
        """The share of tokens of this kind that are right."""
        return (self._right[kind] + 2 * self._first[kind]) / (self._seen[kind] + 2)

    def passed(self, seconds: float) -> None:
        """A pass took so long, with drafts or without."""
        self._spent += seconds

    def drafted(self, count: int, seconds: float) -> None:
        """It took so long to draft so many tokens."""
        if self._tried < 0:  # the first time, a small model reads the prompt: that is not what drafting takes
            self._tried = 0.0
            return
        each = seconds / count
        each = min(each, 2 * self._tried) if self._tried else each
        self._balance -= each * count
        self._tried += (each - self._tried) * (0.2 if self._tried else 1.0)

    def saw(self, kind: int, drafted: int, accepted: int, whole: bool, beside: int) -> None:
        """Of so many drafted tokens the first `accepted` were right; whole: the next was not looked at, or
        there is none.
        """
        self._right[kind] = self._right[kind] * FADING + accepted
        self._seen[kind] = self._seen[kind] * FADING + accepted + (not whole)
        self._rest = not accepted
        one = self.costs.of(beside)
        self._balance += accepted * one / beside - (self.costs.of(beside + drafted) - one)
