// Try: a text, its labels, and its words coloured by what they contributed.
import { post } from "./api.js";
import { Bar, Failure, html, NONE, percent, pieces, rate, share, Stranger, useState } from "./ui.js";

const WEAK = 1 / 12;
const STRONG = 2 / 3;

// What a pair of words adds is divided between its two words.
function weighted(explanation) {
  const words = [...(explanation.words ?? [])].map((one) => ({ ...one, weight: one.part - (one.against ?? 0) })).sort((a, b) => a.begin - b.begin);
  for (const pair of explanation.pairs ?? []) {
    const weight = (pair.part - (pair.against ?? 0)) / 2;
    for (const word of words) if (word.begin === pair.begin || word.end === pair.end) word.weight += weight;
  }
  return words;
}

function Coloured({ text, explanation }) {
  // Code points, as the explanation counts.
  const points = Array.from(text);
  const words = weighted(explanation);
  const most = Math.max(0, ...words.map((word) => Math.abs(word.weight)));
  const found = [];
  let end = 0;
  for (const word of words) {
    found.push(...pieces(points.slice(end, word.begin).join("")));
    const size = Math.abs(word.weight);
    const kind = size <= WEAK * most ? "" : `${word.weight > 0 ? "for" : "against"}${size >= STRONG * most ? " strong" : ""}`;
    const title = `${word.weight > 0 ? "+" : ""}${word.weight.toFixed(2)}`;
    found.push(html`<mark class=${kind} title=${title}>${pieces(points.slice(word.begin, word.end).join(""))}</mark>`);
    end = word.end;
  }
  found.push(...pieces(points.slice(end).join("")));
  return html`<p class="stranger words" dir="auto">${found}</p>`;
}

function Parts({ text, explanation }) {
  const points = Array.from(text);
  const parts = [...(explanation.words ?? []), ...(explanation.pairs ?? [])]
    .map((one) => ({ ...one, name: points.slice(one.begin, one.end).join(""), weight: one.part - (one.against ?? 0) }))
    .sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight)).slice(0, 8);
  const signed = (value) => `${value > 0 ? "+" : ""}${value.toFixed(2)}`;
  return html`<div class="scroll" tabindex="0"><table><thead><tr><th>Part</th><th class="n">For <${Stranger} text=${explanation.label} /></th>${explanation.against ? html`<th class="n">For <${Stranger} text=${explanation.against} /></th>` : null}<th class="n">Difference</th></tr></thead>
    <tbody>${parts.map((one) => html`<tr key=${`${one.begin} ${one.end}`}><td><${Stranger} text=${one.name} /></td><td class="n">${signed(one.part)}</td>${explanation.against ? html`<td class="n">${signed(one.against ?? 0)}</td>` : null}<td class="n">${signed(one.weight)}</td></tr>`)}
    <tr><td class="muted">before any word</td><td class="n">${signed(explanation.bias)}</td>${explanation.against ? html`<td class="n">${signed(explanation.against_bias ?? 0)}</td>` : null}<td class="n">${signed(explanation.bias - (explanation.against_bias ?? 0))}</td></tr></tbody></table></div>`;
}

function Said({ title, said, text }) {
  const ranking = said.ranking?.length ? said.ranking : said.score === undefined ? [] : [{ label: said.label ?? "(no label)", score: said.score }];
  return html`<section class="panel"><div class="head"><h2>${title}</h2><span class="mono muted">${said.version}</span></div>
    <p class="answer">${said.label ? html`<${Stranger} text=${said.label} />` : said.status === "ok" ? "no label: the score is below the threshold" : `${said.status}${said.reason ? `: ${said.reason}` : ""}`} <span class="muted">${share(said.score)}${said.took_ms === undefined ? "" : `, in ${rate(said.took_ms)} ms`}</span></p>
    <table><thead><tr><th>Label</th><th class="n">Score</th><th class="bar"><span class="hidden">As a bar</span></th></tr></thead>
      <tbody>${ranking.map((one) => html`<tr key=${one.label}><td><${Stranger} text=${one.label} /></td><td class="n">${percent(one.score)}</td><td class="bar"><${Bar} of=${one.score} /></td></tr>`)}</tbody></table>
    ${said.explanation ? html`<h3>Why <${Stranger} text=${said.explanation.label} />${said.explanation.against ? html` and not <${Stranger} text=${said.explanation.against} />` : null}</h3>
      <${Coloured} text=${text} explanation=${said.explanation} />
      <p class="muted key"><mark class="for">for</mark> <mark class="against">against</mark> the stronger, the bolder</p>
      <${Parts} text=${text} explanation=${said.explanation} />` : html`<p class="muted">Without an explanation: workers of before explain nothing.</p>`}
  </section>`;
}

export function Try() {
  const [text, setText] = useState("");
  const [tried, setTried] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const ask = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      setTried(await post("try", { text }));
      setError(null);
    } catch (failed) {
      setError(failed);
    } finally {
      setBusy(false);
    }
  };
  const enter = (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void ask(event); };
  return html`<h1>Try</h1>
    <form class="panel" onSubmit=${ask}>
      <label><span>Text</span><textarea rows="3" value=${text} maxlength="60000" onInput=${(event) => setText(event.target.value)} onKeyDown=${enter} required></textarea></label>
      <div class="row"><button class="main" disabled=${busy || !text.trim()}>Ask</button><span class="muted">${busy ? "Waiting for the answer." : "It is published as every request is. Ctrl and Enter asks too."}</span></div>
    </form>
    <${Failure} error=${error} />
    ${tried ? html`<div class="grid wide"><${Said} title="Answered by the workers" said=${tried.answered} text=${tried.text} />
      ${tried.beside ? html`<${Said} title="The challenger would say" said=${tried.beside} text=${tried.text} />` : html`<section class="panel"><h2>The challenger</h2><p class="muted">${tried.alone ?? NONE}</p></section>`}</div>` : null}`;
}
