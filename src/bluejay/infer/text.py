"""Incremental detokenization: only complete characters, and no text after a stop sequence."""

import codecs


class TextStream:
    """Turns the tokens of one sequence into text that can be shown at once and never has to be retracted."""

    def __init__(self, token_bytes: list[bytes], stop: tuple[str, ...] = ()) -> None:
        self.token_bytes = token_bytes
        self.stop = stop
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
        if not self.stop:
            return new
        text = self.held + new
        found = [at for at in map(text.find, self.stop) if at >= 0]
        if found:
            self.stopped, self.held = True, ""
            return text[: min(found)]
        keep = 0 if last else max((overlap(text, stop) for stop in self.stop), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]


def overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)
