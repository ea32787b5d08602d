// Makes and changes elements. Data only ever becomes text or an attribute's value, never markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element: make("button", {class: "primary", onclick: f, "aria-label": "…"}, "text", child, …).
 * Functions become listeners, true and false set and leave out an attribute, null and undefined are left out.
 */
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key.replace(/^on/, ""), value);
    else attribute(element, key, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Set an attribute, if it is not so already; false, null and undefined take it away. */
export function attribute(element, name, value) {
  if (value === false || value === null || value === undefined) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/** Set the text, if it is not so already: what has not changed costs no layout. */
export function say(element, text) {
  const words = String(text);
  if (element.textContent !== words) element.textContent = words;
}

/** Show or hide. */
export function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}

/**
 * Make the children of `parent` stand for `items`, in order: each is made once by `create(item)`, and then kept up to
 * date by `update(node, item)`. Nodes are known by `key(item)`; what stands where it should is not touched.
 */
export function keyed(parent, items, key, create, update) {
  const known = (parent.keyed ??= new Map());
  const wanted = new Set();
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    wanted.add(name);
    let node = known.get(name);
    if (!node) {
      node = create(item);
      known.set(name, node);
    }
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
    update(node, item);
  }
  for (const [name, node] of known) {
    if (!wanted.has(name)) {
      node.remove();
      known.delete(name);
    }
  }
}
