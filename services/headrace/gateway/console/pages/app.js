// The shell: who is logged in, which page is shown, and whether the console is reached.
import { get, keepToken, post, whenLoggedOut } from "./api.js";
import { useFeed } from "./feed.js";
import { Keys } from "./keys.js";
import { Label } from "./label.js";
import { Letters } from "./letters.js";
import { Now } from "./now.js";
import { Try } from "./try.js";
import { clock, Failure, html, render, useCallback, useEffect, useRef, useState } from "./ui.js";
import { Versions } from "./versions.js";

const PAGES = [
  { id: "now", title: "Now", roles: null, show: Now },
  { id: "label", title: "Label", roles: ["labeller"], show: Label },
  { id: "try", title: "Try", roles: null, show: Try },
  { id: "versions", title: "Versions", roles: null, show: Versions },
  { id: "letters", title: "Dead letters", roles: ["operator"], show: Letters },
  { id: "keys", title: "Keys and usage", roles: ["operator"], show: Keys },
];

const allowed = (page, roles) => page.roles === null || page.roles.some((role) => roles.includes(role));
const wanted = () => window.location.hash.replace(/^#\/?/, "").split("/")[0];

function usePage(roles) {
  const [id, setId] = useState(wanted);
  useEffect(() => {
    const turn = () => setId(wanted());
    window.addEventListener("hashchange", turn);
    return () => window.removeEventListener("hashchange", turn);
  }, []);
  const pages = PAGES.filter((page) => allowed(page, roles));
  return [pages, pages.find((page) => page.id === id) ?? pages[0]];
}

function Login({ onLogin }) {
  const [token, setToken] = useState("");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      onLogin(await post("login", { token: token.trim() }));
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return html`<main class="login"><section class="panel"><h1>headrace console</h1>
    <form onSubmit=${submit}>
      <label><span>Token of an API key</span>
        <input type="password" autocomplete="current-password" value=${token} onInput=${(event) => setToken(event.target.value)} required autofocus /></label>
      <button class="main" disabled=${busy || !token.trim()}>Log in</button>
    </form>
    <${Failure} error=${error} />
    <p class="muted">An operator makes one: <code>headrace keys add --role labeller --note NAME</code>. Labels and moves are recorded with the key's note.</p>
  </section></main>`;
}

function Connection({ feed }) {
  const lost = feed.lostSince !== null;
  return html`<span role="status" class=${lost ? "lost" : "muted"}>${lost ? `Connection lost at ${clock(feed.lostSince)}, trying again` : feed.ticks.length ? "Connected" : "Connecting"}</span>`;
}

function Shell({ me, onLogout }) {
  const feed = useFeed(true);
  const [pages, page] = usePage(me.roles);
  const place = useRef(null);
  const shown = useRef(page.id);
  useEffect(() => {
    document.title = `${page.title} · headrace`;
    // A new page begins at its top, for the eye and for a screen reader.
    if (shown.current !== page.id) place.current.focus();
    shown.current = page.id;
    document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [page.id]);
  const logout = async () => {
    try { await post("logout"); } finally { onLogout(); }
  };
  return html`
    <header class="top">
      <span class="name">headrace</span>
      <nav aria-label="Pages">${pages.map((one) => html`<a key=${one.id} href=${`#/${one.id}`} aria-current=${one.id === page.id ? "page" : undefined}>${one.title}</a>`)}</nav>
      <div class="state"><${Connection} feed=${feed} /><span class="who" title=${me.roles.join(", ")}>${me.name}</span><button class="link" onClick=${logout}>Log out</button></div>
    </header>
    <main ref=${place} tabindex="-1"><${page.show} key=${page.id} feed=${feed} me=${me} /></main>`;
}

function App() {
  const [me, setMe] = useState(undefined);
  const enter = useCallback((found) => {
    keepToken(found.csrf);
    setMe(found);
  }, []);
  useEffect(() => {
    whenLoggedOut(() => setMe(null));
    // The printed address has the token behind #, a part that browsers never send.
    const given = /^#token=(.+)$/.exec(window.location.hash);
    if (given) {
      window.history.replaceState(null, "", "#/now");
      post("login", { token: decodeURIComponent(given[1]) }).then(enter, () => setMe(null));
    } else {
      get("me").then(enter, () => setMe(null));
    }
  }, []);
  if (me === undefined) return null;
  if (me === null) return html`<${Login} onLogin=${enter} />`;
  return html`<${Shell} me=${me} onLogout=${() => setMe(null)} />`;
}

render(html`<${App} />`, document.getElementById("app"));
