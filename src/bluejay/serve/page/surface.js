// The one text that the person and the model write. A plain textarea holds it, so that caret, selection, paste, undo,
// input methods and screen readers work as everywhere; a mirror of the same text under it, itself invisible, carries
// the tint where the model wrote. Text only ever becomes text nodes.

import { afterAppend, afterEdit, checked } from "./marks.js";

const NEAR_END = 48; // pixels from the end that still count as reading the end

export class Surface {
  constructor(textarea, mirror, scroller, onEdit) {
    this.textarea = textarea;
    this.mirror = mirror;
    this.scroller = scroller;
    this.marks = [];
    this.text = "";
    this.following = false;
    this.top = 0;
    textarea.addEventListener("input", () => {
      const text = textarea.value;
      this.marks = afterEdit(this.marks, this.text, text);
      this.text = text;
      this.paint();
      onEdit();
    });
    scroller.addEventListener("scroll", () => {
      // The text may have grown since our own scrolling; only a way up is the person's.
      const nearEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END;
      if (nearEnd) this.following = true;
      else if (scroller.scrollTop < this.top) this.following = false;
      this.top = scroller.scrollTop;
    });
  }

  get state() {
    return { text: this.text, marks: this.marks };
  }

  set state({ text, marks }) {
    this.textarea.value = String(text ?? "");
    this.text = this.textarea.value;
    this.marks = checked(marks, this.text);
    this.paint();
  }

  // While the model writes, its words go to the end and the person may read and select, not edit.
  set busy(busy) {
    this.textarea.readOnly = busy;
    if (busy) {
      this.following = true;
      this.follow();
    }
  }

  append(words) {
    // A textarea keeps line feeds only; the marks must count what it keeps.
    const added = words.replace(/\r\n?/g, "\n");
    if (!added) return;
    const start = this.text.length;
    this.textarea.setRangeText(added, start, start, "preserve");
    this.text = this.textarea.value;
    const continues = this.marks.at(-1)?.[1] === start;
    this.marks = afterAppend(this.marks, start, this.text.length);
    if (continues) this.mirror.lastElementChild.firstChild.appendData(added);
    else this.paint();
    this.follow();
  }

  paint() {
    const nodes = [];
    let at = 0;
    for (const [from, to] of this.marks) {
      nodes.push(document.createTextNode(this.text.slice(at, from)));
      const span = document.createElement("span");
      span.className = "model";
      span.append(document.createTextNode(this.text.slice(from, to)));
      nodes.push(span);
      at = to;
    }
    // A last line that is empty has no height without something that stands on it.
    nodes.push(document.createTextNode(`${this.text.slice(at)}\u200b`));
    this.mirror.replaceChildren(...nodes);
  }

  // Keep the end in view, once a frame at most, unless the person has scrolled away from it.
  follow() {
    if (!this.following || this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (this.following) this.scroller.scrollTop = this.scroller.scrollHeight;
    });
  }
}
