// The states {text, spans, samples} before and after each run or example. Typing in between is left to the text area's
// own undo.

export class UndoStack {
	states = [];
	at = -1;

	// Record the state of the page. This discards the states that were undone.
	record(state) {
		if (this.isCurrent(state)) this.states[this.at] = state;
		else this.states.splice(++this.at, Infinity, state);
	}

	undo(state) {
		this.record(state);
		return this.states[--this.at];
	}

	redo() {
		return this.states[++this.at];
	}

	canUndo(state) {
		return this.at > 0 || (this.at === 0 && !this.isCurrent(state));
	}

	canRedo(state) {
		return this.at < this.states.length - 1 && this.isCurrent(state);
	}

	// Whether nothing has changed since the state was recorded.
	isCurrent({ text, samples }) {
		const current = this.states[this.at];
		return current?.text === text && current.samples === samples;
	}
}
