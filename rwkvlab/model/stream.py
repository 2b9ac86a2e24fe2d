"""Text as it comes: tokens become pieces of text, stop strings are found across tokens and never shown."""

from collections.abc import Sequence

from rwkvlab.model.vocab import Decoder


class TextStream:
    """Turns tokens into pieces of text and ends at the first stop string.

    A piece is held back while it may still become a stop string; the pieces given out join to `text`. Where several
    stop strings are completed at once, the one that is complete after the fewest characters counts.
    """

    def __init__(self, decoder: Decoder, stops: Sequence[str] = ()) -> None:
        """Take a fresh decoder and the stop strings (not empty)."""
        self._decoder = decoder
        self._stops = tuple(stops)
        self._held = ""
        self._pieces: list[str] = []
        self.stopped = False

    @property
    def text(self) -> str:
        """All that was given out."""
        return "".join(self._pieces)

    def push(self, token: int) -> str:
        """Return the text that `token` settles; sets `stopped` where a stop string is complete."""
        self._held += self._decoder.push(token)
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._give(min(found)[1], drop=True)
        return self._give(len(self._held) - self._open())

    def flush(self) -> str:
        """Return what is left when no more tokens come; a cut character becomes U+FFFD."""
        if self.stopped:
            return ""
        self._held += self._decoder.flush()
        return self._give(len(self._held))

    def _open(self) -> int:
        """Return how many characters at the end may be the beginning of a stop string."""
        longest = max(map(len, self._stops), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stops):
                return size
        return 0

    def _give(self, size: int, drop: bool = False) -> str:
        piece = self._held[:size]
        self._held = "" if drop else self._held[size:]
        if piece:
            self._pieces.append(piece)
        return piece


class Trim:
    """Cuts `lead` and the white space around a text that comes in pieces."""

    def __init__(self, lead: str) -> None:
        """Take what is cut from the front where it is there; white space is cut in any case."""
        self._lead = lead.strip()
        self._front = True
        self._held = ""

    def push(self, piece: str) -> str:
        """Return what is settled of the text so far."""
        self._held += piece
        if self._front:
            start = self._held.lstrip()
            if not start or (len(start) < len(self._lead) and self._lead.startswith(start)):
                return ""
            self._held = start.removeprefix(self._lead).lstrip()
            self._front = not self._held
            self._lead = ""
        text = self._held.rstrip()
        self._held = self._held[len(text) :]
        return text

    def flush(self) -> str:
        """Return what was held back as a possible beginning of the lead."""
        text, self._held = self._held.strip() if self._front else "", ""
        return text
