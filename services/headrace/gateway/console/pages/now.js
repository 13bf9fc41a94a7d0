// Now: rates of requests and answers, latency and lag.
import { Chart, MOST_LINES } from "./chart.js";
import { Bar, clock, count, Figure, html, milliseconds, moment, NONE, percent, rate, seconds, share, Stranger, useMemo } from "./ui.js";

const inMs = (value) => milliseconds(value).join(" ");
inMs.least = 10;
const inRecords = (value) => count(value);
inRecords.least = 10;
const inRate = (value) => rate(value);
const inPercent = (value) => (value === null || value === undefined ? NONE : `${Math.round(value)} %`);
inPercent.least = 90;

function versionLines(ticks) {
  const totals = new Map();
  for (const tick of ticks) for (const [version, seen] of Object.entries(tick.versions ?? {})) totals.set(version, (totals.get(version) ?? 0) + seen);
  const most = [...totals].sort((a, b) => b[1] - a[1]).slice(0, MOST_LINES).map(([version]) => version).sort();
  return most.map((version) => ({
    name: version,
    values: ticks.map((tick) => (tick.sampled ? (100 * (tick.versions?.[version] ?? 0)) / tick.sampled : null)),
  }));
}

function Share({ of, counted }) {
  return html`<td class="n">${count(counted)}</td><td class="n">${percent(of ? counted / of : null)}</td>
    <td class="bar"><${Bar} of=${of ? counted / of : 0} /></td>`;
}

function Labels({ summary }) {
  const labels = summary?.labels ?? [];
  const total = labels.reduce((sum, [, counted]) => sum + counted, 0);
  return html`<section class="panel"><div class="head"><h2>Answers by label</h2>
      <span class="muted">of ${count(total)} sampled in the last minute</span></div>
    <table><thead><tr><th>Label</th><th class="n">Answers</th><th class="n">Share</th><th class="bar"><span class="hidden">As a bar</span></th></tr></thead>
    <tbody>${labels.length ? labels.map(([label, counted]) => html`<tr key=${label}><td><${Stranger} text=${label} /></td><${Share} of=${total} counted=${counted} /></tr>`)
      : html`<tr><td colspan="4" class="muted">No answer yet.</td></tr>`}</tbody></table></section>`;
}

function Statuses({ summary }) {
  const total = summary?.sampled ?? 0;
  const of = (status) => summary?.statuses?.[status] ?? 0;
  return html`<section class="panel"><h2>Answers by status</h2>
    <table><thead><tr><th>Status</th><th class="n">Answers</th><th class="n">Share</th><th class="bar"><span class="hidden">As a bar</span></th></tr></thead>
    <tbody>${["ok", "expired", "failed"].map((status) => html`<tr key=${status}><td class=${status === "failed" && of(status) ? "bad" : ""}>${status}</td><${Share} of=${total} counted=${of(status)} /></tr>`)}</tbody></table></section>`;
}

// As a population stability index is read: below 0.1 no change, above 0.25 a large one.
const degree = (psi) => (psi < 0.1 ? "no change" : psi <= 0.25 ? "some change" : "a large change");

function Drift({ drift }) {
  const measured = drift?.labels !== undefined && drift?.labels !== null;
  return html`<section class="panel"><div class="head"><h2>Drift</h2><span class="mono muted">${drift?.version ?? NONE}</span></div>
    <table><thead><tr><th>Of</th><th class="n">PSI</th><th>Read as</th></tr></thead>
    <tbody>${[["labels", drift?.labels], ["confidence", drift?.confidence]].map(([name, psi]) => html`<tr key=${name}><td>${name}</td><td class="n">${measured ? share(psi) : NONE}</td><td class=${measured && psi > 0.25 ? "bad" : ""}>${measured ? degree(psi) : NONE}</td></tr>`)}</tbody></table>
    <p class="muted">${measured ? `How far ${count(drift.answers)} sampled answers are from those on the version's test rows.`
      : drift?.why ?? (drift?.needed ? `${count(drift.answers)} of ${count(drift.needed)} answers that a measure takes were sampled since somebody watches.` : "Not measured yet.")}</p></section>`;
}

function Moves({ moves }) {
  const shown = moves.slice(-12).reverse();
  return html`<section class="panel"><h2>Versions: how aliases moved</h2><div class="scroll" tabindex="0">
    <table><thead><tr><th>When</th><th>Alias</th><th>Version</th><th>By</th><th>Reason</th></tr></thead>
    <tbody>${shown.length ? shown.map((move) => html`<tr key=${`${move.alias} ${move.moved_at_ms}`}>
      <td class="nowrap">${moment(move.moved_at_ms)}</td><td>${move.alias}${move.pinned ? ", pinned" : ""}</td><td class="mono nowrap">${move.version}</td>
      <td><${Stranger} text=${move.by ?? NONE} /></td><td class="why"><${Stranger} text=${move.reason ?? NONE} /></td></tr>`)
      : html`<tr><td colspan="5" class="muted">No alias yet. The first training or headrace models publish makes one.</td></tr>`}</tbody></table></div></section>`;
}

export function Now({ feed }) {
  const { ticks, summary, drift, moves } = feed;
  const last = ticks.at(-1) ?? null;
  const times = useMemo(() => ticks.map((tick) => tick.at_ms), [ticks]);
  const rates = useMemo(() => [{ name: "answers", values: ticks.map((t) => t.answers_s ?? null) }, { name: "requests", values: ticks.map((t) => t.requests_s ?? null) }], [ticks]);
  const waits = useMemo(() => [{ name: "p50", values: ticks.map((t) => t.p50_ms ?? null) }, { name: "p99", values: ticks.map((t) => t.p99_ms ?? null) }], [ticks]);
  const lags = useMemo(() => [{ name: "waiting", values: ticks.map((t) => t.lag ?? null) }], [ticks]);
  const versions = useMemo(() => versionLines(ticks), [ticks]);
  const [p50, p50Unit] = milliseconds(summary?.p50_ms);
  const [p99, p99Unit] = milliseconds(summary?.p99_ms);
  const [behind, behindUnit] = seconds(last?.lag_s);
  return html`
    <div class="head"><h1>Now</h1><span class="muted">${last ? `as of ${clock(last.at_ms)}` : "waiting for the first figures"}</span></div>
    ${last?.away ? html`<p class="notice bad" role="alert">Kafka can't be read: ${last.away}</p>` : null}
    <dl class="figures">
      <${Figure} name="Answers" value=${rate(last?.answers_s)} unit="per second" />
      <${Figure} name="Requests" value=${rate(last?.requests_s)} unit="per second" />
      <${Figure} name="Latency, half within" value=${p50} unit=${p50Unit} />
      <${Figure} name="Latency, 99 % within" value=${p99} unit=${p99Unit} />
      <${Figure} name="Lag" value=${count(last?.lag)} unit="requests" />
      <${Figure} name="Oldest waits" value=${behind} unit=${behindUnit} />
    </dl>
    <div class="grid wide">
      <${Chart} title="Rate, records per second" times=${times} lines=${rates} format=${inRate} />
      <${Chart} title="Latency" times=${times} lines=${waits} format=${inMs} />
      <${Chart} title="Lag, requests" times=${times} lines=${lags} format=${inRecords} />
      <${Chart} title="Versions that answer" times=${times} lines=${versions} format=${inPercent} />
    </div>
    <div class="grid wide"><${Labels} summary=${summary} /><div class="stack"><${Statuses} summary=${summary} /><${Drift} drift=${drift} /></div></div>
    <${Moves} moves=${moves} />
    <p class="muted">Rates and lag are counted. Latency runs from the request's time stamp to the answer's; it, labels, statuses and versions are those of at most 512 answers a second.</p>`;
}
