// Versions: what each can do, what the gate said in words, and what operators do with them.
import { get, post } from "./api.js";
import { count, Failure, html, moment, NONE, percent, share, Stranger, useEffect, useLoaded, useRef, useState } from "./ui.js";

const MAIN = [["test_macro_f1", "Macro-F1"], ["test_accuracy", "Accuracy"], ["test_calibration_error", "Calibration error"], ["test_rows", "Test rows"]];
const shown = (name, value) => (value === undefined ? NONE : /rows|disagreements|bytes|size|words|seconds/.test(name) || Math.abs(value) >= 100 ? count(value) : value.toFixed(4));
const size = (bytes) => (bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

// Asks for a reason before something is done that everybody's answers depend on.
function Confirm({ asked, onDone, onClose }) {
  const [reason, setReason] = useState("");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const place = useRef(null);
  useEffect(() => { place.current.showModal(); }, []);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      onDone(await post(asked.path, { ...asked.body, reason: reason.trim() }), asked.said);
      onClose();
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return html`<dialog ref=${place} onClose=${onClose} aria-labelledby="confirm"><form onSubmit=${submit}>
    <h2 id="confirm">${asked.title}</h2><p>${asked.about}</p>
    <label><span>Reason, which stays on the log with your name</span><input value=${reason} maxlength="500" onInput=${(event) => setReason(event.target.value)} required autofocus /></label>
    <${Failure} error=${error} />
    <div class="row"><button class="main" disabled=${busy || !reason.trim()}>${asked.verb}</button><button type="button" onClick=${onClose}>Cancel</button></div>
  </form></dialog>`;
}

function Gate({ verdict }) {
  if (!verdict) return html`<p class="muted">The gate has not looked at it.</p>`;
  return html`<p><b class=${verdict.promoted ? "" : "bad"}>${verdict.promoted ? "Passed" : "Refused"}</b> on ${moment(verdict.decided_at_ms)}, against ${verdict.champion ?? "no champion"}: <${Stranger} text=${verdict.reason} /></p>
    <div class="scroll" tabindex="0"><table><thead><tr><th>Check</th><th>Outcome</th><th>What was measured</th></tr></thead>
    <tbody>${(verdict.checks ?? []).map((check) => html`<tr key=${check.name}><td class="nowrap">${check.name}</td><td class=${check.passed ? "" : "bad"}>${check.passed ? "passed" : "failed"}</td><td class="why"><${Stranger} text=${check.detail} /></td></tr>`)}</tbody></table></div>`;
}

function Report({ version }) {
  const [report, setReport] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => { setReport(null); setError(null); }, [version]);
  const ask = async () => {
    setBusy(true);
    try {
      setReport(await get(`versions/${encodeURIComponent(version)}/report`));
      setError(null);
    } catch (failed) {
      setError(failed);
    } finally {
      setBusy(false);
    }
  };
  return html`<section class="panel"><div class="head"><h2>By class, on what people labelled since</h2></div>
    <p class="muted">The version answers the texts of the random slice that people labelled after it was made, so it has seen none of them.</p>
    <div class="row"><button onClick=${ask} disabled=${busy}>${busy ? "Measuring" : "Measure"}</button></div>
    <${Failure} error=${error} />
    ${report ? html`<p>${count(report.rows)} texts. Accuracy ${percent(report.accuracy)} (95 % interval ${percent(report.accuracy_interval[0])} to ${percent(report.accuracy_interval[1])}), macro-F1 ${share(report.macro_f1)}.</p>
      <div class="scroll" tabindex="0"><table><thead><tr><th>Class</th><th class="n">Texts</th><th class="n">Precision</th><th class="n">Recall</th><th class="n">F1</th></tr></thead>
      <tbody>${report.classes.map((one) => html`<tr key=${one.label}><td><${Stranger} text=${one.label} /></td><td class="n">${count(one.support)}</td><td class="n">${share(one.precision)}</td><td class="n">${share(one.recall)}</td><td class="n">${share(one.f1)}</td></tr>`)}</tbody></table></div>
      <h3>Confusion, the most frequent first</h3>
      ${report.confusions.length ? html`<div class="scroll" tabindex="0"><table><thead><tr><th>People say</th><th>The version says</th><th class="n">Texts</th></tr></thead>
      <tbody>${report.confusions.map((one) => html`<tr key=${`${one.label}\n${one.predicted}`}><td><${Stranger} text=${one.label} /></td><td><${Stranger} text=${one.predicted} /></td><td class="n">${count(one.count)}</td></tr>`)}</tbody></table></div>` : html`<p>Every text was answered as people labelled it.</p>`}` : null}</section>`;
}

function Compared({ one, other }) {
  const figures = (version) => ({ ...version.metrics, size_bytes: version.size, ...(version.threshold === null ? {} : { threshold: version.threshold }), ...Object.fromEntries(Object.entries(version.compression).map(([name, value]) => [`compression ${name}`, value])) });
  const [a, b] = [figures(one), figures(other)];
  const names = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((name) => !/_(low|high)$/.test(name)).sort();
  return html`<section class="panel"><div class="head"><h2>Compared</h2></div><div class="scroll" tabindex="0"><table><thead><tr><th>Figure</th><th class="n mono">${one.version}</th><th class="n mono">${other.version}</th><th class="n">Change</th></tr></thead>
    <tbody>${names.map((name) => html`<tr key=${name}><td class="nowrap">${name.replaceAll("_", " ")}</td><td class="n">${shown(name, a[name])}</td><td class="n">${shown(name, b[name])}</td><td class="n">${a[name] === undefined || b[name] === undefined ? NONE : `${b[name] > a[name] ? "+" : ""}${shown(name, b[name] - a[name])}`}</td></tr>`)}</tbody></table></div></section>`;
}

export function Versions({ me }) {
  const { value: listed, error, reload, set } = useLoaded(() => get("versions"), []);
  const [chosen, setChosen] = useState(null);
  const [beside, setBeside] = useState("");
  const [asked, setAsked] = useState(null);
  const [said, setSaid] = useState("");
  const operator = me.roles.includes("operator");
  if (!listed) return html`<h1>Versions</h1><${Failure} error=${error} />${error ? html`<button onClick=${reload}>Try again</button>` : html`<p class="muted">Reading the versions.</p>`}`;
  const aliasOf = (name) => listed.aliases.find((one) => one.alias === name) ?? null;
  const champion = aliasOf("champion");
  const version = listed.versions.find((one) => one.version === (chosen ?? champion?.version)) ?? listed.versions[0] ?? null;
  const other = listed.versions.find((one) => one.version === beside) ?? null;
  const done = (after, words) => { set(after); setSaid(words); };
  const names = (of) => listed.aliases.filter((one) => one.version === of).map((one) => (one.pinned ? `${one.alias} (pinned)` : one.alias)).join(", ");
  const promote = (one) => setAsked({ title: "Promote", verb: "Promote", path: "versions/promote", body: { alias: "champion", version: one.version, seen: champion?.version ?? null }, said: `champion points at ${one.version}`,
    about: html`Workers that follow champion answer with <span class="mono">${one.version}</span> within a second${one.verdict && !one.verdict.promoted ? ", though the gate refused it" : ""}.` });
  const back = () => setAsked({ title: "Roll back", verb: "Roll back", path: "versions/rollback", body: { alias: "champion", seen: champion.version }, said: `champion points at ${champion.previous} again`,
    about: html`champion goes from <span class="mono">${champion.version}</span> back to <span class="mono">${champion.previous}</span>. A second rollback goes forward again.` });
  const pin = () => setAsked({ title: champion.pinned ? "Unpin" : "Pin", verb: champion.pinned ? "Unpin" : "Pin", path: "versions/pin", body: { alias: "champion", pinned: !champion.pinned, seen: champion.version }, said: champion.pinned ? "champion is no longer pinned" : "champion is pinned",
    about: champion.pinned ? "The trainer may move champion again." : "The trainer no longer moves champion; new versions become challengers." });
  const train = () => setAsked({ title: "Train now", verb: "Train", path: "versions/train", body: {}, said: "a training is ordered", about: "A running trainer begins a training of all labels that there are, after one that runs." });
  return html`
    <div class="head"><h1>Versions</h1><span class="muted">of model ${listed.name}</span><span class="muted" role="status">${said}</span></div>
    <${Failure} error=${error} />
    ${operator ? html`<div class="row"><button onClick=${train}>Train now</button><button onClick=${back} disabled=${!champion?.previous}>Roll back champion</button><button onClick=${pin} disabled=${!champion}>${champion?.pinned ? "Unpin champion" : "Pin champion"}</button><button onClick=${reload}>Look again</button></div>` : null}
    ${listed.training ? html`<p class="muted">Last training: ${listed.training.state}, since ${moment(listed.training.begun_at_ms)}, because <${Stranger} text=${listed.training.reason} />${listed.training.error ? html`; it failed: <${Stranger} text=${listed.training.error} />` : null}</p>` : null}
    ${listed.order ? html`<p class="muted">Last order to train: ${moment(listed.order.ordered_at_ms)}${listed.order.by ? html`, by <${Stranger} text=${listed.order.by} />` : null}: <${Stranger} text=${listed.order.reason} /></p>` : null}
    <section class="panel"><h2>All versions</h2><div class="scroll" tabindex="0"><table><thead><tr><th>Version</th><th>Aliases</th><th>Gate</th>${MAIN.map(([name, title]) => html`<th key=${name} class="n">${title}</th>`)}<th class="n">Labels</th><th class="n">Size</th><th>Created</th><th><span class="hidden">Do</span></th></tr></thead>
      <tbody>${listed.versions.length ? listed.versions.map((one) => html`<tr key=${one.version} class=${one === version ? "chosen" : ""}>
        <td class="mono nowrap"><button class="link mono" aria-pressed=${one === version} onClick=${() => setChosen(one.version)}>${one.version}</button></td><td>${names(one.version)}</td>
        <td class=${one.verdict && !one.verdict.promoted ? "bad" : ""}>${one.unproven ? "unproven" : one.verdict ? (one.verdict.promoted ? "passed" : "refused") : NONE}</td>
        ${MAIN.map(([name]) => html`<td key=${name} class="n">${shown(name, one.metrics[name])}</td>`)}<td class="n">${count(one.labels)}</td><td class="n">${size(one.size)}</td><td class="nowrap">${moment(one.created_at_ms)}</td>
        <td class="n">${operator && one.version !== champion?.version ? html`<button onClick=${() => promote(one)}>Promote</button>` : null}</td></tr>`) : html`<tr><td colspan="11" class="muted">No version yet.</td></tr>`}</tbody></table></div></section>
    ${version ? html`<div class="grid wide">
      <section class="panel"><div class="head"><h2>The gate's checks</h2><span class="mono muted">${version.version}</span></div><${Gate} verdict=${version.verdict} />
        <dl class="facts"><dt>Rows</dt><dd>${count(version.rows)}${version.machine_rows ? `, and ${count(version.machine_rows)} of teachers` : ""}</dd>
          <dt>No label below</dt><dd>${share(version.raised?.threshold ?? version.threshold)}</dd>
          <dt>Certificate</dt><dd>${version.certificate ? `disagrees with people on at most ${percent(version.certificate.disagree)} above ${share(version.certificate.threshold)}; covers ${percent(version.certificate.coverage)}` : "none"}</dd>
          ${version.untested.length ? html`<dt>Not tested</dt><dd><${Stranger} text=${version.untested.join(", ")} /></dd>` : null}</dl></section>
      ${me.roles.some((role) => role !== "client") ? html`<${Report} version=${version.version} />` : null}</div>
      <div class="row"><label><span>Compare ${version.version} with</span><select value=${beside} onChange=${(event) => setBeside(event.target.value)}><option value="">choose a version</option>${listed.versions.filter((one) => one !== version).map((one) => html`<option key=${one.version} value=${one.version}>${one.version} ${names(one.version)}</option>`)}</select></label></div>
      ${other && other !== version ? html`<${Compared} one=${version} other=${other} />` : null}` : null}
    <section class="panel"><h2>How aliases moved</h2><div class="scroll" tabindex="0"><table><thead><tr><th>When</th><th>Alias</th><th>Version</th><th>By</th><th>Reason</th></tr></thead>
      <tbody>${[...listed.moves].reverse().slice(0, 50).map((one, place) => html`<tr key=${place}><td class="nowrap">${moment(one.moved_at_ms)}</td><td>${one.alias}${one.pinned ? ", pinned" : ""}</td><td class="mono nowrap">${one.version}</td><td><${Stranger} text=${one.by ?? NONE} /></td><td class="why"><${Stranger} text=${one.reason ?? NONE} /></td></tr>`)}</tbody></table></div></section>
    ${asked ? html`<${Confirm} asked=${asked} onDone=${done} onClose=${() => setAsked(null)} />` : null}`;
}
