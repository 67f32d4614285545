"""Incremental detokenization: only complete characters, and no text after a stop sequence."""

import codecs


class TextStream:
    """Turns the tokens of one sequence into text that can be shown at once and never has to be retracted."""

    def __init__(self, token_bytes: list[bytes], stop: tuple[str, ...] = ()) -> None:
        self.token_bytes = token_bytes
        self.searches = [Search(text) for text in stop]
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is final after this token. Sets `stopped` when a stop sequence is complete."""
        new = self.token_bytes[token]
        if new.isascii() and not self.decoder.buffer:
            return self._release(new.decode(), last=False)
        return self._release(self.decoder.decode(new), last=False)

    def finish(self) -> str:
        """The text that was held back because a character or a stop sequence might have begun there."""
        return "" if self.stopped else self._release(self.decoder.decode(b"", final=True), last=True)

    def _release(self, new: str, last: bool) -> str:
        """The text that is final once `new` follows what is held; all of it if `new` is the `last`."""
        if not self.searches:
            return new
        text = self.held + new
        found = [len(self.held) + at for search in self.searches if (at := search.read(new)) is not None]
        if found:
            self.stopped, self.held = True, ""
            return text[: min(found)]
        keep = 0 if last else max(search.n_matched for search in self.searches)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]


class Search:
    """Looks for a string in a text that arrives in pieces, by the algorithm of Knuth, Morris and Pratt. Its table grows
    with what has matched, so that the work depends on the length of the text and not on that of the string."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self.n_matched = 0
        """The length of the longest proper prefix of `wanted` with which the text ends."""
        self.borders = [0, 0]
        """n -> the length of the longest proper prefix of `wanted[:n]` with which that ends, too."""

    def read(self, piece: str) -> int | None:
        """Read further text. Returns where the string begins, counted from the start of the piece, once it is complete,
        else None."""
        wanted, borders, n = self.wanted, self.borders, self.n_matched
        if not n and wanted[0] not in piece:
            return None
        for at, character in enumerate(piece):
            while n and wanted[n] != character:
                n = borders[n]
            n += wanted[n] == character
            if n == len(wanted):
                return at + 1 - n
            if n == len(borders):
                border = borders[-1]
                while border and wanted[border] != character:
                    border = borders[border]
                borders.append(border + (wanted[border] == character))
        self.n_matched = n
        return None
