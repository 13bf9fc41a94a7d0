// A line chart over time. A canvas is a picture, so its label and the legend say the same in words.
import uPlot from "./vendor/uPlot.mjs";
import { html, useEffect, useMemo, useRef, useState } from "./ui.js";

const HEIGHT = 176;
const COLOURS = ["--accent", "--against", "--mark", "--muted"];
export const MOST_LINES = COLOURS.length;

function useTheme() {
  const [dark, setDark] = useState(() => window.matchMedia("(prefers-color-scheme: dark)").matches);
  useEffect(() => {
    const query = window.matchMedia("(prefers-color-scheme: dark)");
    const turn = () => setDark(query.matches);
    query.addEventListener("change", turn);
    return () => query.removeEventListener("change", turn);
  }, []);
  return dark;
}

// ``lines``: name, values (null where there is none) and how a value is written.
export function Chart({ title, times, lines, format }) {
  const place = useRef(null);
  const plot = useRef(null);
  const dark = useTheme();
  const names = lines.map((line) => line.name).join("\n");
  const data = useMemo(() => [times.map((ms) => ms / 1000), ...lines.map((line) => line.values)], [times, lines]);

  useEffect(() => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    // The observer may still speak of a chart that is taken away.
    const box = place.current;
    const width = () => Math.max(120, box.clientWidth);
    plot.current = new uPlot(
      {
        width: width(),
        height: HEIGHT,
        padding: [8, 26, 0, 0],
        cursor: { show: false },
        legend: { show: false },
        scales: { x: { time: true }, y: { range: (_, low, high) => [0, Math.max(high ?? 0, format.least ?? 1) * 1.1] } },
        axes: [
          { ...axis, size: 26, space: 70, values: (_, at) => at.map((s) => new Date(s * 1000).toTimeString().slice(0, 8)) },
          { ...axis, size: 54, space: 32, values: (_, at) => at.map((value) => format(value)) },
        ],
        series: [
          {},
          ...lines.map((line, number) => ({
            label: line.name,
            stroke: colour(COLOURS[number % COLOURS.length]),
            width: 1.5,
            points: { show: false },
            spanGaps: false,
          })),
        ],
      },
      data,
      place.current,
    );
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: width(), height: HEIGHT }));
    observer.observe(place.current);
    return () => {
      observer.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, [dark, names]);

  useEffect(() => { plot.current?.setData(data); }, [data]);

  const last = (line) => line.values.at(-1);
  const said = lines.map((line) => `${line.name} ${format(last(line))}`).join(", ");
  return html`<section class="panel">
    <div class="head"><h2>${title}</h2>
      <div class="legend">${lines.map((line, number) => html`<span key=${line.name}><i class=${`s${number % MOST_LINES}`}></i>${line.name} <b>${format(last(line))}</b></span>`)}</div>
    </div>
    <div class="chart" ref=${place} role="img" aria-label=${`${title} over the last minutes; now ${said || "nothing"}`}></div>
  </section>`;
}
