// What all pages share: Preact, formats of figures and times, and texts of strangers as text.
import { h, render, Fragment } from "./vendor/preact.mjs";
import { useCallback, useEffect, useMemo, useRef, useState } from "./vendor/hooks.mjs";
import htm from "./vendor/htm.mjs";

export const html = htm.bind(h);
export { Fragment, render, useCallback, useEffect, useMemo, useRef, useState };

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en-GB", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
export const NONE = "–";

export function count(value) {
  return value === null || value === undefined ? NONE : whole.format(value);
}

export function rate(value) {
  if (value === null || value === undefined) return NONE;
  return value < 100 ? tenths.format(value) : whole.format(value);
}

export function milliseconds(value) {
  return value === null || value === undefined ? [NONE, ""] : value < 10_000 ? [whole.format(value), "ms"] : [tenths.format(value / 1000), "s"];
}

export function seconds(value) {
  if (value === null || value === undefined) return [NONE, ""];
  if (value < 120) return [tenths.format(value), "s"];
  return value < 7200 ? [whole.format(value / 60), "min"] : [whole.format(value / 3600), "h"];
}

export function percent(value, digits = 1) {
  return value === null || value === undefined ? NONE : `${(100 * value).toFixed(digits)} %`;
}

export function share(value) {
  return value === null || value === undefined ? NONE : value.toFixed(3);
}

export function moment(ms) {
  const when = new Date(ms);
  if (Number.isNaN(when.getTime())) return NONE;
  const two = (n) => String(n).padStart(2, "0");
  const day = `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())}`;
  return `${day} ${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;
}

export function clock(ms) {
  return moment(ms).slice(11);
}

// Characters that are invisible or reverse a line are shown as their numbers. Joiners stay, because scripts need them.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u0600-\u0605\u061c\u06dd\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

export function pieces(text) {
  const found = [];
  let end = 0;
  for (const match of text.matchAll(UNSEEN)) {
    if (match.index > end) found.push(text.slice(end, match.index));
    const name = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    found.push(html`<span class="ctl">U+${name}</span>`);
    end = match.index + match[0].length;
  }
  if (end < text.length) found.push(text.slice(end));
  return found;
}

// A stranger's text: shown as text, never as markup, and kept inside its own box.
export function Stranger({ text, as = "span", ...rest }) {
  return h(as, { ...rest, class: `stranger ${rest.class ?? ""}`, dir: "auto" }, ...pieces(text ?? ""));
}

export function Figure({ name, value, unit }) {
  return html`<div><dt>${name}</dt><dd>${value} <small>${unit}</small></dd></div>`;
}

// A fraction as a bar; the figure beside it says the same.
export function Bar({ of }) {
  return html`<span aria-hidden="true"><i style=${{ width: `${100 * Math.max(0, Math.min(1, of))}%` }}></i></span>`;
}

export function Failure({ error }) {
  return error ? html`<p class="notice bad" role="alert">${error.message ?? String(error)}</p>` : null;
}

// The value of a promise. ``reload`` asks again, and the value from before stays until the new one is there.
export function useLoaded(load, inputs) {
  const [state, setState] = useState({ value: null, error: null });
  const run = useRef(0);
  const reload = useCallback(async () => {
    const mine = ++run.current;
    try {
      const value = await load();
      if (mine === run.current) setState({ value, error: null });
    } catch (error) {
      if (mine === run.current) setState((before) => ({ ...before, error }));
    }
  }, inputs);
  useEffect(() => {
    void reload();
    return () => { run.current += 1; };
  }, [reload]);
  return { ...state, reload, set: (value) => setState({ value, error: null }) };
}
