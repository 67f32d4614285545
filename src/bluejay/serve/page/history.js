// The states of the text before and after each run, so that a run, or an example, can be taken back without losing
// anything. Typing in between is the text field's own undo.

export class History {
  constructor() {
    this.states = [];
    this.at = -1;
  }

  // Note where the text stands; what had been undone before is forgotten.
  record(state) {
    if (this.states[this.at]?.text === state.text) this.states[this.at] = state;
    else this.states.splice(++this.at, Infinity, state);
  }

  // The state before, after noting what was typed since.
  undo(state) {
    if (this.states[this.at]?.text !== state.text) this.record(state);
    if (this.at > 0) this.at--;
    return this.states[this.at];
  }

  redo() {
    if (this.at < this.states.length - 1) this.at++;
    return this.states[this.at];
  }

  canUndo(text) {
    return this.at > 0 || (this.at === 0 && this.states[0].text !== text);
  }

  canRedo(text) {
    return this.at < this.states.length - 1 && this.states[this.at].text === text;
  }

  // Whether the text is as a run or an example left it.
  isCurrent(text) {
    return this.states[this.at]?.text === text;
  }
}
