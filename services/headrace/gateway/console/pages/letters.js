// Dead letters: why records could not be used, one of them whole, and its replay.
import { get, post } from "./api.js";
import { count, Failure, html, moment, NONE, Stranger, useLoaded, useState } from "./ui.js";

function Letter({ letter, onClose }) {
  const { value: whole, error } = useLoaded(() => get(`letters/${encodeURIComponent(letter.at)}`), [letter.at]);
  const [failed, setFailed] = useState(null);
  const [said, setSaid] = useState("");
  const [busy, setBusy] = useState(false);
  const replay = async () => {
    setBusy(true);
    try {
      setSaid(`Published again as ${(await post("letters/replay", { at: letter.at })).to}`);
      setFailed(null);
    } catch (found) {
      setFailed(found);
    } finally {
      setBusy(false);
    }
  };
  return html`<section class="panel" aria-label=${`Dead letter ${letter.at}`}><div class="head"><h2>Dead letter ${letter.at}</h2><button class="link" onClick=${onClose}>Close</button></div>
    <${Failure} error=${error} />
    ${whole ? html`<dl class="facts"><dt>Record</dt><dd class="mono">${letter.origin}</dd><dt>Stage</dt><dd>${letter.stage}</dd><dt>Error</dt><dd>${letter.error}, attempt ${letter.attempt}</dd>
      <dt>Message</dt><dd><${Stranger} text=${letter.message} /></dd><dt>Version</dt><dd class="mono">${whole.version ?? NONE}</dd><dt>Key</dt><dd><${Stranger} text=${whole.key ?? NONE} /></dd>
      ${whole.headers.map(([name, value], place) => html`<dt key=${place}><${Stranger} text=${name} /></dt><dd><${Stranger} text=${value ?? NONE} /></dd>`)}</dl>
      <h3>Value, ${count(whole.size)} bytes${whole.cut ? ", of which the first are shown" : ""}</h3>
      <pre tabindex="0" aria-label="Value">${whole.value === null || whole.value === undefined ? html`<span class="muted">Nothing is kept.</span>` : html`<${Stranger} text=${whole.value} />`}</pre>
      <div class="row"><button onClick=${replay} disabled=${busy || letter.lacking !== undefined}>Replay</button><span class="muted" role="status">${said || (letter.lacking ? `Can't be replayed here: it is ${letter.lacking}.` : "It goes back to the topic that it came from, where the log confirms it.")}</span></div>
      <${Failure} error=${failed} />` : null}</section>`;
}

export function Letters() {
  const { value: found, error, reload } = useLoaded(() => get("letters"), []);
  const [open, setOpen] = useState(null);
  if (!found) return html`<h1>Dead letters</h1><${Failure} error=${error} />${error ? html`<button onClick=${reload}>Try again</button>` : html`<p class="muted">Reading the letters.</p>`}`;
  return html`<div class="head"><h1>Dead letters</h1><span class="muted">the last ${count(found.counted)}</span><button class="link" onClick=${reload}>Look again</button></div>
    <${Failure} error=${error} />
    ${open ? html`<${Letter} letter=${open} onClose=${() => setOpen(null)} />` : null}
    <div class="letters"><section class="panel"><h2>Reasons</h2><table><thead><tr><th>Stage</th><th>Error</th><th class="n">Letters</th></tr></thead>
      <tbody>${found.reasons.length ? found.reasons.map((one) => html`<tr key=${`${one.stage} ${one.error}`}><td>${one.stage}</td><td>${one.error}</td><td class="n">${count(one.letters)}</td></tr>`) : html`<tr><td colspan="3" class="muted">There is no dead letter.</td></tr>`}</tbody></table></section>
    <section class="panel"><h2>Letters, the newest first</h2><div class="scroll" tabindex="0"><table><thead><tr><th>Letter</th><th>When</th><th>Record</th><th>Error</th><th>Message</th></tr></thead>
      <tbody>${found.letters.map((one) => html`<tr key=${one.at} class=${open?.at === one.at ? "chosen" : ""}><td><button class="link mono" onClick=${() => setOpen(one)}>${one.at}</button></td><td class="nowrap">${moment(one.at_ms)}</td><td class="mono nowrap">${one.origin}</td><td class="nowrap">${one.error}</td><td class="why"><${Stranger} text=${one.message} /></td></tr>`)}</tbody></table></div></section></div>`;
}
