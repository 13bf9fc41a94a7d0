// Versions: the figures of each, the gate's checks in words, and the actions of operators.
import { get, post } from "./api.js";
import { count, Failure, html, moment, NONE, percent, share, Stranger, useEffect, useLoaded, useRef, useState } from "./ui.js";

const MAIN = [["test_macro_f1", "Macro-F1"], ["test_accuracy", "Accuracy"], ["test_calibration_error", "Calibration error"], ["test_rows", "Test rows"]];
const shown = (name, value) => (value === undefined ? NONE : /rows|disagreements|bytes|size|words|seconds/.test(name) || Math.abs(value) >= 100 ? count(value) : value.toFixed(4));
const size = (bytes) => (bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

// Asks for a reason before an action that changes everybody's answers.
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

// What each label of the other version would have been is asked of both, on the last requests.
function Differences({ one, other }) {
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => { setFound(null); setError(null); }, [one, other]);
  const ask = async () => {
    setBusy(true);
    try {
      setFound(await get(`versions/${encodeURIComponent(one)}/beside/${encodeURIComponent(other)}`));
      setError(null);
    } catch (failed) {
      setError(failed);
    } finally {
      setBusy(false);
    }
  };
  const label = (name) => (name === null ? html`<span class="muted">no label</span>` : html`<${Stranger} text=${name} />`);
  return html`<section class="panel"><div class="head"><h2>Texts that they answer differently</h2></div>
    <p class="muted">Both versions answer the last requests here, without those that were erased.</p>
    <div class="row"><button onClick=${ask} disabled=${busy}>${busy ? "Comparing" : "Compare on the last requests"}</button></div>
    <${Failure} error=${error} />
    ${found ? html`<p>Of ${count(found.requests)} texts ${count(found.alike)} are answered alike (${percent(found.requests ? found.alike / found.requests : null)})${found.erased ? `; ${count(found.erased)} erased ones are left out` : ""}.${found.unread ? ` No text is shown, because it can't be read which were erased: ${found.unread}` : ""}</p>
      ${found.pairs.length ? html`<div class="scroll" tabindex="0"><table><thead><tr><th class="mono">${one}</th><th class="mono">${other}</th><th class="n">Texts</th></tr></thead>
      <tbody>${found.pairs.map((pair) => html`<tr key=${`${pair.a}\n${pair.b}`}><td>${label(pair.a)}</td><td>${label(pair.b)}</td><td class="n">${count(pair.requests)}</td></tr>`)}</tbody></table></div>` : null}
      ${found.examples.length ? html`<h3>Examples</h3><div class="scroll" tabindex="0"><table><thead><tr><th>Text</th><th class="mono">${one}</th><th class="mono">${other}</th></tr></thead>
      <tbody>${found.examples.map((example) => html`<tr key=${example.at}><td class="why"><${Stranger} text=${example.text} /></td><td class="nowrap">${label(example.a)} ${share(example.a_score)}</td><td class="nowrap">${label(example.b)} ${share(example.b_score)}</td></tr>`)}</tbody></table></div>` : null}` : null}</section>`;
}

// Sizes that compression tried: a picture, and the same as a table.
function Compression({ version }) {
  const { value: curve, error } = useLoaded(() => get(`versions/${encodeURIComponent(version)}/curve`), [version]);
  const none = error?.status === 404;
  const body = () => {
    const all = [curve.original, ...curve.points.map((point) => point.score)];
    const [small, large] = [Math.min(...all.map((one) => one.size)), Math.max(...all.map((one) => one.size))].map(Math.log10);
    const low = Math.min(...all.map((one) => one.macro_f1)), high = Math.max(...all.map((one) => one.macro_f1));
    const x = (bytes) => 46 + 340 * (large > small ? (Math.log10(bytes) - small) / (large - small) : 0.5);
    const y = (f1) => 12 + 130 * (high > low ? (high - f1) / (high - low) : 0.5);
    const least = curve.original.macro_f1 - curve.budget.points / 100;
    const taken = (point) => point.score.size === curve.chosen.score.size && point.score.macro_f1 === curve.chosen.score.macro_f1;
    const rows = [...curve.points].sort((a, b) => b.score.size - a.score.size);
    return html`<p>Of ${count(curve.points.length)} sizes ${size(curve.chosen.score.size)} was taken, ${(curve.original.size / curve.chosen.score.size).toFixed(1)} times smaller than ${size(curve.original.size)} before: macro-F1 ${share(curve.chosen.score.macro_f1)} after ${share(curve.original.macro_f1)} on the validation rows; ${curve.budget.points} points might be lost.</p>
      <svg class="curve" viewBox="0 0 400 176" role="img" aria-label="Macro-F1 of the sizes that were tried; the table below has the figures">
        <line class="axis" x1="46" y1="150" x2="392" y2="150" /><line class="axis" x1="46" y1="8" x2="46" y2="150" />
        ${least >= low ? html`<line class="least" x1="46" x2="392" y1=${y(least)} y2=${y(least)} />` : null}
        ${curve.points.map((point, place) => html`<circle key=${place} class=${taken(point) ? "taken" : point.within ? "within" : "beyond"} cx=${x(point.score.size)} cy=${y(point.score.macro_f1)} r=${taken(point) ? 6 : 4} />`)}
        <rect class="original" x=${x(curve.original.size) - 4} y=${y(curve.original.macro_f1) - 4} width="8" height="8" />
        <text x="46" y="168">${size(10 ** small)}</text><text x="392" y="168" text-anchor="end">${size(10 ** large)}</text>
        <text x="42" y="16" text-anchor="end">${share(high)}</text><text x="42" y="146" text-anchor="end">${share(low)}</text></svg>
      <p class="muted key"><i class="dot taken"></i>taken <i class="dot within"></i>within the budget <i class="dot beyond"></i>beyond it <i class="dot original"></i>before compression</p>
      <details><summary>As a table</summary><div class="scroll" tabindex="0"><table><thead><tr><th class="n">Size</th><th class="n">Macro-F1</th><th class="n">us a text</th><th>Tuned</th><th>Outcome</th></tr></thead>
      <tbody>${rows.map((point, place) => html`<tr key=${place} class=${taken(point) ? "chosen" : ""}><td class="n">${size(point.score.size)}</td><td class="n">${share(point.score.macro_f1)}</td><td class="n">${point.score.latency_us === null ? NONE : point.score.latency_us.toFixed(1)}</td><td>${point.tuning}</td><td>${taken(point) ? "taken" : point.within ? "within the budget" : "beyond it"}</td></tr>`)}</tbody></table></div></details>`;
  };
  return html`<section class="panel"><div class="head"><h2>Compression</h2><span class="mono muted">${version}</span></div>
    ${none ? html`<p class="muted">${error.message}</p>` : html`<${Failure} error=${error} />`}${curve && !error ? body() : null}</section>`;
}

// The threshold above which a version may answer alone: tried first, then published.
function Certify({ version, onDone }) {
  const [allowed, setAllowed] = useState("2");
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => { setFound(null); setError(null); }, [version, allowed]);
  const ask = async (dry) => {
    setBusy(true);
    try {
      const certified = await post("versions/certify", { version, disagree: Number(allowed) / 100, dry_run: dry });
      if (!dry) onDone(certified.listed, `${version} is certified`);
      setFound(dry ? certified.certificate : null);
      setError(null);
    } catch (failed) {
      setError(failed);
      setFound(null);
    } finally {
      setBusy(false);
    }
  };
  return html`<form class="certify" onSubmit=${(event) => { event.preventDefault(); void ask(true); }}>
    <div class="row"><label><span>Certify: % of answers that may be wrong</span><input type="number" min="0.01" max="50" step="any" value=${allowed} onInput=${(event) => setAllowed(event.target.value)} required /></label><button disabled=${busy}>${busy ? "Measuring" : "Try"}</button></div>
    <${Failure} error=${error} />
    ${found ? html`<p role="status">Above a score of ${share(found.threshold)} at most ${percent(found.bound, 2)} of its answers are wrong (${percent(found.confidence, 0)} sure): ${count(found.errors)} of ${count(found.accepted)} were. It answers ${percent(found.coverage)} of all ${count(found.rows)} alone; the rest gets no label.</p>
      <div class="row"><button type="button" class="main" disabled=${busy} onClick=${() => ask(false)}>Certify</button></div>` : null}</form>`;
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
          ${version.untested.length ? html`<dt>Not tested</dt><dd><${Stranger} text=${version.untested.join(", ")} /></dd>` : null}</dl>
        ${operator ? html`<${Certify} version=${version.version} onDone=${done} />` : null}</section>
      <${Compression} version=${version.version} />
      ${me.roles.some((role) => role !== "client") ? html`<${Report} version=${version.version} />` : null}</div>
      <div class="row"><label><span>Compare ${version.version} with</span><select value=${beside} onChange=${(event) => setBeside(event.target.value)}><option value="">choose a version</option>${listed.versions.filter((one) => one !== version).map((one) => html`<option key=${one.version} value=${one.version}>${one.version} ${names(one.version)}</option>`)}</select></label></div>
      ${other && other !== version ? html`<div class="grid wide"><${Compared} one=${version} other=${other} />${me.roles.some((role) => role !== "client") ? html`<${Differences} one=${version.version} other=${other.version} />` : null}</div>` : null}` : null}
    <section class="panel"><h2>How aliases moved</h2><div class="scroll" tabindex="0"><table><thead><tr><th>When</th><th>Alias</th><th>Version</th><th>By</th><th>Reason</th></tr></thead>
      <tbody>${[...listed.moves].reverse().slice(0, 50).map((one, place) => html`<tr key=${place}><td class="nowrap">${moment(one.moved_at_ms)}</td><td>${one.alias}${one.pinned ? ", pinned" : ""}</td><td class="mono nowrap">${one.version}</td><td><${Stranger} text=${one.by ?? NONE} /></td><td class="why"><${Stranger} text=${one.reason ?? NONE} /></td></tr>`)}</tbody></table></div></section>
    ${asked ? html`<${Confirm} asked=${asked} onDone=${done} onClose=${() => setAsked(null)} />` : null}`;
}
