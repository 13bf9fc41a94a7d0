// Label: one text at a time, by keyboard. Digits and letters choose, space skips, u undoes, shift takes the near
// duplicates along.
import { get, post } from "./api.js";
import { count, Failure, Fragment, html, moment, NONE, percent, share, Stranger, useCallback, useEffect, useLoaded, useRef, useState } from "./ui.js";

// Without u, which undoes. Digits are recognized by the key's position, so that shift changes nothing.
const KEYS = [..."1234567890", ..."abcdefghijklmnopqrstvwxyz"];

function keyOf(event) {
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code);
  return digit ? digit[1] : event.key.toLowerCase();
}

const typing = (event) => event.target instanceof HTMLElement && event.target.closest("input[type=text], input[type=search], textarea, select") !== null;

function Choices({ labels, item, filter, onGive, onFilter, box }) {
  const shown = filter ? labels.filter((label) => label.toLowerCase().includes(filter.toLowerCase())) : labels;
  const known = labels.some((label) => label === filter.trim());
  const pick = (event) => {
    if (event.key === "Escape") { onFilter(""); event.target.blur(); }
    if (event.key === "Enter" && shown.length > 0 && filter) { event.preventDefault(); onGive(shown[0], event.shiftKey); }
  };
  return html`<${Fragment}>
    <div class="row"><label class="hidden" for="filter">Find or add a label</label>
      <input id="filter" ref=${box} type="search" placeholder="Find or add a label ( / )" value=${filter} maxlength="200" autocomplete="off"
        onInput=${(event) => onFilter(event.target.value)} onKeyDown=${pick} />
      ${filter.trim() && !known ? html`<button onClick=${(event) => onGive(filter.trim(), event.shiftKey)}>Add the label <${Stranger} text=${filter.trim()} /></button>` : null}
    </div>
    <div class="choices" role="group" aria-label="Labels">${shown.map((label) => {
      const place = labels.indexOf(label);
      return html`<button key=${label} disabled=${!item} class=${item && !item.blind && item.answered === label ? "chosen" : ""} title=${label}
        onClick=${(event) => onGive(label, event.shiftKey)}>${KEYS[place] ? html`<kbd>${KEYS[place]}</kbd>` : null}<${Stranger} text=${label} /></button>`;
    })}</div><//>`;
}

function Agreement({ pairs }) {
  if (!pairs.length) return html`<p class="muted">No text was labelled by two people yet. The queue Second opinion asks for that.</p>`;
  return html`<table><thead><tr><th>Between</th><th class="n">Texts</th><th class="n">Alike</th><th class="n">Kappa</th></tr></thead>
    <tbody>${pairs.map((pair) => html`<tr key=${`${pair.a} ${pair.b}`}><td><${Stranger} text=${pair.a} />, <${Stranger} text=${pair.b} /></td>
      <td class="n">${count(pair.texts)}</td><td class="n">${percent(pair.equal / pair.texts, 0)}</td><td class="n">${pair.kappa === null || pair.kappa === undefined ? NONE : pair.kappa.toFixed(2)}</td></tr>`)}</tbody></table>`;
}

const SOURCES = { margin: "Unsure", abstained: "No label", disagreement: "Versions differ" };
const times = (value) => value >= 9.95 ? count(value) : value.toFixed(1);

// One sentence about a queue: how often its labels correct the model, beside labels of texts that chance chose.
function saving(one) {
  if (one.times === null || one.times === undefined) return html`${SOURCES[one.source]}: too few to say. It takes ${one.fewest_texts} texts of each, labelled by the answers of one version, and ${one.fewest_wrong} wrong ones among each.`;
  const [low, high] = [times(one.low), times(one.high)];
  if (one.low <= 1 && one.high >= 1) return html`${SOURCES[one.source]}: no difference is shown, ${times(one.times)} times as often (95 %: ${low} to ${high}).`;
  return html`A label from ${SOURCES[one.source]} corrects the model ${times(one.times)} times as often as one by chance (95 %: ${low} to ${high}). To find its ${count(one.wrong)} errors by chance takes about ${count(one.texts * one.times)} labels instead of ${count(one.texts)}.`;
}

function Saved({ saved }) {
  return html`<section class="panel"><h2>What the queues saved</h2>
    ${saved.length ? html`<table><thead><tr><th>Queue</th><th class="n">Model wrong</th><th class="n">Random slice</th></tr></thead>
    <tbody>${saved.map((one) => html`<tr key=${one.source}><td>${SOURCES[one.source]}</td><td class="n">${count(one.wrong)} of ${count(one.texts)}</td><td class="n">${count(one.chance_wrong)} of ${count(one.chance_texts)}</td></tr>`)}</tbody></table>
    ${saved.map((one) => html`<p key=${one.source}>${saving(one)}</p>`)}`
    : html`<p class="muted">Not measured yet: label some texts of Unsure and some of Random slice, answered by the same version.</p>`}</section>`;
}

// What each version learnt and reached.
function Learnt({ learnt }) {
  return html`<section class="panel"><h2>What the labels brought</h2>
    ${learnt.length ? html`<table><thead><tr><th>Version</th><th class="n">Rows</th><th class="n">Macro-F1</th><th class="n">95 %</th></tr></thead>
    <tbody>${learnt.map((one) => html`<tr key=${one.version}><td class="nowrap">${moment(one.created_at_ms).slice(0, 16)}</td><td class="n">${count(one.rows)}</td><td class="n">${share(one.metrics.test_macro_f1)}</td>
      <td class="n">${one.metrics.test_macro_f1_low === undefined ? NONE : `${share(one.metrics.test_macro_f1_low)} to ${share(one.metrics.test_macro_f1_high)}`}</td></tr>`)}</tbody></table>` : html`<p class="muted">No version was made of labels yet.</p>`}</section>`;
}

function Progress({ overview, mine, me }) {
  return html`<${Fragment}>
    <section class="panel"><div class="head"><h2>Progress</h2><span class="muted">${count(overview.total)} labels on the log</span></div>
      <p role="status">You labelled ${count(mine)} since you opened this page.</p>
      <table><thead><tr><th>Who</th><th class="n">Labels</th><th class="n">Today (UTC)</th></tr></thead>
      <tbody>${overview.people.length ? overview.people.map((one) => html`<tr key=${one.name} class=${one.name === me.name ? "chosen" : ""}><td><${Stranger} text=${one.name} /></td><td class="n">${count(one.labels)}</td><td class="n">${count(one.today)}</td></tr>`)
        : html`<tr><td colspan="3" class="muted">Nobody yet.</td></tr>`}</tbody></table></section>
    <${Learnt} learnt=${overview.learnt} />
    <${Saved} saved=${overview.saved} />
    <section class="panel"><h2>Agreement between people</h2><${Agreement} pairs=${overview.agreement} /></section>
    <section class="panel"><h2>Who said what</h2>
      <table><thead><tr><th>When</th><th>Who</th><th>Label</th><th>Text</th></tr></thead>
      <tbody>${overview.recent.length ? overview.recent.map((one) => html`<tr key=${`${one.at_ms} ${one.text}`}><td class="nowrap">${moment(one.at_ms).slice(5, 16)}</td><td><${Stranger} text=${one.by} /></td><td><${Stranger} text=${one.label} /></td><td class="one-line"><${Stranger} text=${one.text} /></td></tr>`)
        : html`<tr><td colspan="4" class="muted">No label yet.</td></tr>`}</tbody></table></section><//>`;
}

export function Label({ me }) {
  const { value: overview, error: failed, reload } = useLoaded(() => get("label"), []);
  const [queue, setQueue] = useState("margin");
  const [asked, setAsked] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const [filter, setFilter] = useState("");
  const [left, setLeft] = useState(() => new Set());
  const [mine, setMine] = useState(0);
  const [said, setSaid] = useState("");
  // Labels that were given here since the overview was read.
  const [own, setOwn] = useState([]);
  const box = useRef(null);
  const working = useRef(false);

  // One call at a time: a key that is pressed twice must not label two texts.
  const run = useCallback(async (work) => {
    if (working.current) return;
    working.current = true;
    setBusy(true);
    try {
      setAsked(await work());
      setError(null);
      setFilter("");
      setLeft(new Set());
    } catch (found) {
      setError(found);
    } finally {
      working.current = false;
      setBusy(false);
    }
  }, []);

  useEffect(() => { void run(() => post("label/next", { queue })); }, [queue]);
  useEffect(() => { if (mine > 0 && mine % 5 === 0) void reload(); }, [mine]);
  useEffect(() => { setOwn([]); }, [overview]);

  // While suspects are being searched the page asks again.
  useEffect(() => {
    if (!asked?.again_s) return undefined;
    const timer = window.setTimeout(() => void run(() => post("label/next", { queue })), 1000 * asked.again_s);
    return () => window.clearTimeout(timer);
  }, [asked]);

  const item = asked?.item ?? null;
  const give = (label, several) => {
    if (!item) return;
    const also = several ? (item.similar ?? []).map((one) => one.at).filter((at) => !left.has(at)) : [];
    void run(async () => {
      const next = await post("label/give", { queue, at: item.at, label, also });
      setMine((before) => before + 1 + also.length);
      setOwn((before) => [{ by: me.name, label, text: item.text.slice(0, 200), at_ms: Date.now() }, ...before].slice(0, 12));
      if (!overview.labels.includes(label)) void reload();
      setSaid(`${label} for ${1 + also.length === 1 ? "one text" : `${1 + also.length} texts`}`);
      return next;
    });
    document.activeElement?.blur?.();
  };
  const skip = () => item && run(() => post("label/next", { queue, skip: item.at }));
  const undo = () => run(async () => {
    const back = await post("label/undo");
    setSaid("The last label was undone");
    if (back.undone !== queue) setQueue(back.undone);
    await reload();
    return back;
  });

  const act = useRef(null);
  act.current = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (typing(event)) return;
    const key = keyOf(event);
    if (key === "/") { event.preventDefault(); box.current?.focus(); return; }
    if (key === " ") {
      // Space on a button presses the button.
      if (event.target instanceof HTMLElement && event.target.closest("button, a, input")) return;
      event.preventDefault();
      void skip();
    } else if (key === "u") {
      event.preventDefault();
      void undo();
    } else {
      const label = overview?.labels[KEYS.indexOf(key)];
      if (KEYS.includes(key) && label !== undefined) {
        event.preventDefault();
        give(label, event.shiftKey);
      }
    }
  };
  useEffect(() => {
    const press = (event) => act.current(event);
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, []);

  const similar = item?.similar ?? [];
  const toggle = (at) => setLeft((before) => {
    const after = new Set(before);
    if (!after.delete(at)) after.add(at);
    return after;
  });
  if (!overview) return html`<h1>Label</h1><${Failure} error=${failed} />${failed ? html`<button onClick=${reload}>Try again</button>` : html`<p class="muted">Reading the labels.</p>`}`;
  const current = overview.queues.find((one) => one.name === queue);
  return html`
    <div class="head"><h1>Label</h1><span class="muted" role="status">${said}</span></div>
    <div class="tabs" role="group" aria-label="Queues">${overview.queues.map((one) => html`<button key=${one.name} aria-pressed=${one.name === queue} onClick=${() => setQueue(one.name)}>${one.title}</button>`)}</div>
    <p class="muted about">${current.about}</p>
    <div class="label">
      <div>
        <section class="panel" aria-busy=${busy}>
          <div class="head"><h2>Text</h2><span class="muted">${item?.given ? html`given <${Stranger} text=${item.given} /> ${share(item.given_score)} · likely <${Stranger} text=${item.answered} /> ${share(item.score)} · ${count(asked.left)} left` : item ? html`${item.why}${item.answered && !item.blind ? html` · answered <${Stranger} text=${item.answered} /> ${share(item.score)}` : ""} · ${count(asked.left)} left` : NONE}</span></div>
          <div class="text" id="text" aria-live="polite" tabindex="0">${item ? html`<${Stranger} text=${item.text} />` : html`<span class="muted">${asked ? asked.empty : "Looking for texts."}</span>`}</div>
          <div class="row"><button onClick=${skip} disabled=${!item}><kbd>space</kbd> Skip</button><button onClick=${undo}><kbd>u</kbd> Undo</button>
            ${item ? null : html`<button onClick=${() => run(() => post("label/next", { queue }))}>Look again</button>`}</div>
          <${Failure} error=${error} />${asked?.told ? html`<p class="notice bad" role="alert">${asked.told}</p>` : null}
        </section>
        <section class="panel"><h2>Labels</h2>
          <${Choices} labels=${overview.labels} item=${item} filter=${filter} onFilter=${setFilter} onGive=${give} box=${box} /></section>
        <section class="panel"><div class="head"><h2>Near duplicates</h2><span class="muted">${similar.length ? html`<kbd>shift</kbd> with a label's key labels these too` : "none of this text"}</span></div>
          ${similar.length ? html`<ul class="similar">${similar.map((one) => html`<li key=${one.at}><label><input type="checkbox" checked=${!left.has(one.at)} onChange=${() => toggle(one.at)} /><${Stranger} text=${one.text} /></label></li>`)}</ul>` : null}</section>
      </div>
      <div><${Progress} overview=${{ ...overview, recent: [...own, ...overview.recent].slice(0, 12) }} mine=${mine} me=${me} /></div>
    </div>`;
}
