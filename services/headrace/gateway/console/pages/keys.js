// Keys and usage: who may come to the gateway, what each asked of it, and who did what.
import { get, post } from "./api.js";
import { count, Failure, html, moment, NONE, Stranger, useEffect, useLoaded, useRef, useState } from "./ui.js";

const ROLES = [["client", "has texts labelled"], ["labeller", "labels, erases, reads reviews"], ["operator", "moves aliases, replays, makes keys"]];
const BLANK = { client: true, labeller: false, operator: false, note: "", tenant: "", rate: "", burst: "" };

const number = (text) => (text.trim() ? Number(text) : undefined);
const words = (text) => text.trim() || undefined;

function Made({ made, token, onClose }) {
  const box = useRef(null);
  const [said, setSaid] = useState("");
  useEffect(() => { box.current.focus(); box.current.select(); }, [token]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(token);
      setSaid("copied");
    } catch {
      box.current.select();
      setSaid("press Ctrl and C");
    }
  };
  return html`<section class="panel chosen" aria-label="The new key's token"><div class="head"><h2>The token of key ${made.id}</h2><button class="link" onClick=${onClose}>Done</button></div>
    <p>It is shown this once: only a hash of it is kept. Callers send it as <code>Authorization: Bearer TOKEN</code>.</p>
    <div class="row"><input class="mono token" ref=${box} readonly value=${token} aria-label="Token" /><button onClick=${copy}>Copy</button><span class="muted" role="status">${said}</span></div></section>`;
}

function Add({ onMade }) {
  const [form, setForm] = useState(BLANK);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const set = (name, value) => setForm((before) => ({ ...before, [name]: value }));
  const roles = ROLES.map(([role]) => role).filter((role) => form[role]);
  const add = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      const made = await post("keys/add", { roles, note: words(form.note), tenant: words(form.tenant), texts_per_second: number(form.rate), burst: number(form.burst) });
      setForm(BLANK);
      setError(null);
      onMade(made);
    } catch (failed) {
      setError(failed);
    } finally {
      setBusy(false);
    }
  };
  const text = (name, title, rest) => html`<label><span>${title}</span><input value=${form[name]} onInput=${(event) => set(name, event.target.value)} autocomplete="off" ...${rest} /></label>`;
  return html`<form class="panel" onSubmit=${add} aria-label="Add a key"><h2>Add a key</h2>
    <fieldset class="row"><legend>What it allows</legend>${ROLES.map(([role, about]) => html`<label key=${role} class="tick"><input type="checkbox" checked=${form[role]} onChange=${(event) => set(role, event.target.checked)} /><span>${role} <small class="muted">${about}</small></span></label>`)}</fieldset>
    <div class="row fields">${text("note", "Note: whose it is", { maxlength: 200 })}${text("tenant", "Tenant, if any", { maxlength: 249, pattern: "[A-Za-z0-9._\\-]+", title: "letters, digits, '.', '_' and '-'" })}
      ${text("rate", "Texts a second, if bounded", { type: "number", min: "0.001", step: "any" })}${text("burst", "At once", { type: "number", min: "1", step: "any", disabled: !form.rate.trim() })}</div>
    <div class="row"><button class="main" disabled=${busy || !roles.length}>Add</button>${form.tenant.trim() && roles.some((role) => role !== "client") ? html`<span class="muted">A tenant's key does not open the console, which shows texts of all tenants.</span>` : null}</div>
    <${Failure} error=${error} /></form>`;
}

function Listed({ keys, onRevoke, asked, onAsk, busy }) {
  const quota = (key) => (key.texts_per_second === undefined ? NONE : `${count(key.texts_per_second)}/s${key.burst === undefined ? "" : `, ${count(key.burst)} at once`}`);
  return html`<section class="panel"><h2>Keys</h2><div class="scroll" tabindex="0"><table><thead><tr><th>Key</th><th>Note</th><th>Roles</th><th>Tenant</th><th class="n">Quota</th><th>Made</th><th>By</th><th>Revoked</th></tr></thead>
    <tbody>${keys.length ? keys.map((key) => html`<tr key=${key.id}><td class="mono nowrap">${key.id}</td><td class="note"><${Stranger} text=${key.note ?? NONE} /></td><td>${key.roles.join(", ")}</td><td><${Stranger} text=${key.tenant ?? NONE} /></td><td class="n">${quota(key)}</td>
      <td class="nowrap">${moment(key.created_at_ms)}</td><td><${Stranger} text=${key.made_by ?? NONE} /></td>
      <td class="nowrap">${key.revoked_at_ms !== undefined ? html`<span class="bad">${moment(key.revoked_at_ms)}</span>${key.revoked_by ? html` by <${Stranger} text=${key.revoked_by} />` : null}`
        : asked === key.id ? html`<button disabled=${busy} onClick=${() => onRevoke(key)}>Revoke for ever</button> <button class="link" onClick=${() => onAsk(null)}>Keep</button>`
        : html`<button aria-label=${`Revoke ${key.id}`} onClick=${() => onAsk(key.id)}>Revoke</button>`}</td></tr>`)
      : html`<tr><td colspan="8" class="muted">There is no key on the log.</td></tr>`}</tbody></table></div></section>`;
}

function Usage({ notes }) {
  const [month, setMonth] = useState("");
  const { value: found, error } = useLoaded(() => get(`usage?month=${encodeURIComponent(month)}`), [month]);
  const rows = (list, name, empty) => (list.length ? list.map((one) => html`<tr key=${name(one)}><td>${name(one)}</td><td class="n">${count(one.calls)}</td><td class="n">${count(one.texts)}</td><td class="n">${count(one.text_bytes)}</td></tr>`) : html`<tr><td colspan="4" class="muted">${empty}</td></tr>`);
  const table = (title, first, list, name) => html`<section class="panel"><h2>${title}</h2><div class="scroll" tabindex="0"><table><thead><tr><th>${first}</th><th class="n">Calls</th><th class="n">Texts</th><th class="n">Bytes of text</th></tr></thead><tbody>${rows(list, name, `Nothing was asked in ${found.month}.`)}</tbody></table></div></section>`;
  return html`<div class="head"><h2>Usage</h2>${found ? html`<label class="row"><span class="hidden">Month</span><select value=${found.month} onChange=${(event) => setMonth(event.target.value)}>${found.months.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select></label>` : null}<span class="muted">in UTC, as the gateways write it down every ten seconds</span></div>
    <${Failure} error=${error} />
    ${found ? html`<div class="grid">${table("By tenant", "Tenant", found.tenants, (one) => (one.tenant === null ? html`<span class="muted">without a tenant</span>` : html`<${Stranger} text=${one.tenant} />`))}
      ${table("By key", "Key", found.keys, (one) => html`<span class="mono">${one.api_key}</span> <${Stranger} class="muted" text=${notes.get(one.api_key) ?? ""} />`)}</div>` : null}`;
}

function History({ history, error }) {
  return html`<section class="panel"><h2>Who did what</h2><${Failure} error=${error} />
    ${history?.unread.map((why) => html`<p key=${why} class="notice bad">Not read: ${why}</p>`)}
    <div class="scroll" tabindex="0"><table><thead><tr><th>When</th><th>Who</th><th>What</th><th>Reason</th></tr></thead>
    <tbody>${history?.deeds.length ? history.deeds.map((deed, place) => html`<tr key=${place}><td class="nowrap">${moment(deed.at_ms)}</td><td><${Stranger} text=${deed.by ?? NONE} /></td><td class="why">${deed.did} <${Stranger} text=${deed.about} /></td><td class="why"><${Stranger} text=${deed.reason ?? NONE} /></td></tr>`)
      : html`<tr><td colspan="4" class="muted">${history ? "Nothing yet." : "Reading the log."}</td></tr>`}</tbody></table></div>
    <p class="muted">From the log, as far as compaction left it. Commands write no name, and neither does the trainer when it moves an alias.</p></section>`;
}

export function Keys() {
  const { value: listed, error, reload, set } = useLoaded(() => get("keys"), []);
  const { value: history, error: unread, reload: look } = useLoaded(() => get("history"), []);
  const [made, setMade] = useState(null);
  const [asked, setAsked] = useState(null);
  const [failed, setFailed] = useState(null);
  const [busy, setBusy] = useState(false);
  const [said, setSaid] = useState("");
  if (!listed) return html`<h1>Keys and usage</h1><${Failure} error=${error} />${error ? html`<button onClick=${reload}>Try again</button>` : html`<p class="muted">Reading the keys.</p>`}`;
  const keep = (found) => {
    set(found);
    if (found.token) setMade({ made: found.made, token: found.token });
    void look();
  };
  const revoke = async (key) => {
    setBusy(true);
    try {
      keep(await post("keys/revoke", { id: key.id }));
      setSaid(`${key.id} is revoked: gateways refuse it within a second`);
      setFailed(null);
    } catch (found) {
      setFailed(found);
    } finally {
      setAsked(null);
      setBusy(false);
    }
  };
  const notes = new Map(listed.keys.map((key) => [key.id, key.note]));
  return html`<div class="head"><h1>Keys and usage</h1><span class="muted" role="status">${said}</span></div>
    <${Failure} error=${error ?? failed} />
    ${made ? html`<${Made} ...${made} onClose=${() => setMade(null)} />` : null}
    <${Listed} keys=${listed.keys} onRevoke=${revoke} asked=${asked} onAsk=${setAsked} busy=${busy} />
    <${Add} onMade=${keep} />
    <${Usage} notes=${notes} />
    <${History} history=${history} error=${unread} />`;
}
