// Tabs over panels, with the keys that tabs have everywhere: https://www.w3.org/WAI/ARIA/apg/patterns/tabs/

import { made } from "./dom.js";

export class Tabs {
	constructor(list) {
		this.panels = [...document.querySelectorAll("[role=tabpanel]")];
		this.tabs = this.panels.map(({ ariaLabel: name }) => made("button", name, () => this.select(name)));
		for (const tab of this.tabs) tab.role = "tab";
		list.append(...this.tabs);
		list.onkeydown = (event) => {
			const at = this.tabs.indexOf(event.target);
			const to = { ArrowLeft: at - 1, ArrowRight: (at + 1) % this.tabs.length, Home: 0, End: -1 }[event.key];
			if (to === undefined) return;
			event.preventDefault();
			this.select(this.panels.at(to).ariaLabel).focus();
		};
		this.select(this.panels[0].ariaLabel);
	}

	// Show the panel of a name; its tab.
	select(name) {
		this.panels.forEach((panel, i) => {
			panel.hidden = panel.ariaLabel !== name;
			this.tabs[i].ariaSelected = !panel.hidden;
			this.tabs[i].tabIndex = panel.hidden ? -1 : 0;
		});
		document.body.dataset.tab = name;
		return this.tabs.find(({ tabIndex }) => tabIndex === 0);
	}
}
