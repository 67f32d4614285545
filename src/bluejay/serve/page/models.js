// The models of the server, and the one that writes.

import { askModel, getModels } from "./api.js";

export class Models {
	list = []; // as getModels returns it; empty until the server has answered
	current; // one of them
	wanted; // the id of the one that is used if it is there, else the first

	// `onUse` gets the model that writes from now on, and whether another did before.
	constructor(onUse) {
		this.onUse = onUse;
	}

	// Ask the server, which may have more models by now, and use one.
	async fetch(key = this.key) {
		this.key = key;
		this.list = await getModels(key);
		this.use(this.list.find(({ id }) => id === this.wanted) ?? this.list[0]);
	}

	use(model) {
		const another = this.current && this.current.id !== model.id;
		this.current = model;
		this.wanted = model.id;
		askModel(this.several ? model.id : "");
		this.onUse(model, another);
	}

	has(id) {
		return this.list.some((model) => model.id === id);
	}

	get several() {
		return this.list.length > 1;
	}
}
