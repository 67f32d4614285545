// Tabs with the keys of the ARIA Authoring Practices.

import { create } from "./dom.js";

export class Tabs {
	// `onSelect` gets the name of the tab.
	constructor(list, onSelect) {
		this.onSelect = onSelect;
		this.panels = [...document.querySelectorAll("[role=tabpanel]")];
		this.tabs = this.panels.map(({ ariaLabel: name }) => create("button", name, () => this.select(name)));
		for (const tab of this.tabs) tab.role = "tab";
		list.append(...this.tabs);
		list.onkeydown = (event) => {
			const at = this.tabs.indexOf(event.target);
			const to = { ArrowLeft: at - 1, ArrowRight: (at + 1) % this.tabs.length, Home: 0, End: -1 }[event.key];
			if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
			event.preventDefault();
			this.select(this.panels.at(to).ariaLabel).focus();
		};
	}

	// Show the panel of that name. Returns its tab.
	select(name) {
		this.panels.forEach((panel, i) => {
			panel.hidden = panel.ariaLabel !== name;
			this.tabs[i].ariaSelected = !panel.hidden;
			this.tabs[i].tabIndex = panel.hidden ? -1 : 0;
			if (!panel.hidden) this.onSelect(name);
		});
		document.body.dataset.tab = name;
		return this.tabs.find(({ tabIndex }) => tabIndex === 0);
	}
}
