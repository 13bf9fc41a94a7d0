// The stream of live figures: one for the whole page. It also shows whether the console can be reached.
import { get } from "./api.js";
import { useEffect, useState } from "./ui.js";

const MOST_TICKS = 900;
const AGAIN_MS = 2000;
// The server sends an event each second, so after this silence the connection is taken for dead.
const SILENCE_MS = 20_000;

export function useFeed(loggedIn) {
  const [feed, setFeed] = useState({ ticks: [], summary: null, drift: null, moves: [], lostSince: null });
  useEffect(() => {
    if (!loggedIn) return undefined;
    let source = null;
    let timer = 0;
    let silence = 0;
    let ended = false;

    const lose = () => setFeed((before) => (before.lostSince === null ? { ...before, lostSince: Date.now() } : before));
    const again = () => {
      source?.close();
      window.clearTimeout(timer);
      window.clearTimeout(silence);
      if (ended) return;
      lose();
      // When the session is over the login is shown; after anything else the page tries again.
      timer = window.setTimeout(() => get("me").then(open, again), AGAIN_MS);
    };
    const listen = () => {
      window.clearTimeout(silence);
      silence = window.setTimeout(again, SILENCE_MS);
    };
    const open = () => {
      if (ended) return;
      source = new EventSource("api/events");
      listen();
      source.onmessage = (event) => {
        listen();
        const said = JSON.parse(event.data);
        setFeed((before) => {
          const ticks = said.history ?? (said.tick ? [...before.ticks.slice(1 - MOST_TICKS), said.tick] : before.ticks);
          return { ticks, summary: said.summary, drift: said.drift ?? before.drift, moves: said.moves ?? before.moves, lostSince: null };
        });
      };
      source.onerror = again;
    };
    open();
    return () => {
      ended = true;
      source?.close();
      window.clearTimeout(timer);
      window.clearTimeout(silence);
    };
  }, [loggedIn]);
  return feed;
}
