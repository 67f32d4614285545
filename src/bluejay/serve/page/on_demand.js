// Parts of the page that are not seen at first lie in the folder `on_demand` and are loaded when first used.

const FAILED = "This part of the page did not load. Reload the page and try again; your text is kept.";

// A function that loads that part when first called, and gives what `use` makes of it.
export const onDemand = (name, use = (part) => part) => once(() => loadStyle().then(() => import(`./on_demand/${name}.js`)).then(use));

// A function that calls `load` once and always returns that promise. Only a failure is tried again: the server may have
// been restarting.
function once(load) {
	let loading;
	return () => (loading ??= load().catch((cause) => {
		loading = undefined;
		throw new Error(FAILED, { cause });
	}));
}

// The style sheet of all parts. It stands before the others, which adapt it to small screens.
const loadStyle = once(() => new Promise((onload, onerror) => {
	const href = new URL("on_demand/style.css", import.meta.url);
	const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href, onload, onerror });
	document.querySelector("link[rel=stylesheet]").before(link);
}));
