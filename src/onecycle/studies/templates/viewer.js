'use strict';
// Pointing at a place of a figure shows its runs; a click keeps them in view, to open a run's folder or to choose the
// runs for the comparison of curves. Texts are set as texts, never as HTML.
const {runs, figures, metrics, tags} = JSON.parse(document.getElementById('data').textContent);
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#8c8c00'];
const SVG = new DOMParser().parseFromString('<svg>', 'text/html').querySelector('svg').namespaceURI;
const WIDTH = 420, HEIGHT = 260, LEFT = 56, BOTTOM = 30;
const popup = add(document.body, 'div', {id: 'popup', hidden: ''}), curves = document.getElementById('curves');
const chosen = new Set();
let kept = null;

function add(parent, tag, attributes = {}, text = '') {
  const drawn = tag === 'svg' || parent.namespaceURI === SVG;
  const made = drawn ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return parent.appendChild(made);
}

function show(mark, event) {
  popup.replaceChildren();
  add(popup, 'b', {}, mark.title);
  const table = add(popup, 'table'), head = add(table, 'tr'), shown = mark.runs.slice(0, 10);
  add(head, 'th');
  add(head, 'th', {}, `mean ± sd, n = ${mark.n}`);
  for (const run of shown) add(add(head, 'th'), 'a', {href: runs[run].folder}, runs[run].name);
  metrics.forEach((metric, place) => {
    const line = add(table, 'tr', metric === mark.metric ? {class: 'own'} : {});
    for (const text of [metric, mark.means[place], ...shown.map((run) => runs[run].values[place])]) add(line, 'td', {}, text);
  });
  if (shown.length < mark.runs.length) add(popup, 'p', {}, `and ${mark.runs.length - shown.length} more runs`);
  const button = add(popup, 'button', {}, 'compare the curves');
  button.onclick = () => { mark.runs.forEach((run) => chosen.add(run)); compare(); };
  popup.hidden = false;
  const room = document.documentElement.clientWidth - popup.offsetWidth - 8 + window.scrollX;
  popup.style.left = `${Math.max(8, Math.min(event.pageX + 14, room))}px`;
  popup.style.top = `${event.pageY + 14}px`;
}

function hide() { kept = null; popup.hidden = true; }

function compare() {
  curves.replaceChildren();
  if (!chosen.size) return;
  add(curves, 'h2', {}, 'Curves of the chosen runs');
  const list = add(curves, 'p', {class: 'quiet'});
  [...chosen].forEach((run, place) => {
    add(list, 'span', {style: `color: ${COLOURS[place % COLOURS.length]}`}, '■ ');
    add(list, 'a', {href: runs[run].folder}, runs[run].label);
    add(list, 'button', {title: 'leave out'}, '×').onclick = () => { chosen.delete(run); compare(); };
  });
  add(list, 'button', {}, 'leave out all').onclick = () => { chosen.clear(); compare(); };
  for (const tag of tags) draw(tag, [...chosen].map((run) => runs[run].curves[tag] || [[], []]));
}

function draw(tag, lines) {
  const xs = lines.flatMap((line) => line[0]), ys = lines.flatMap((line) => line[1]);
  if (!xs.length) return;
  const [x0, x1, y0, y1] = [0, Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const across = (x) => LEFT + (WIDTH - LEFT - 8) * (x - x0) / (x1 - x0 || 1);
  const up = (y) => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 26) * (y - y0) / (y1 - y0 || 1);
  const svg = add(curves, 'svg', {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: 'chart'});
  add(svg, 'text', {x: LEFT, y: 14}, `${tag} by step`);
  for (const share of [0, 0.5, 1]) {
    const x = x0 + share * (x1 - x0), y = y0 + share * (y1 - y0);
    add(svg, 'path', {d: `M${LEFT} ${up(y)}H${WIDTH - 8}`, stroke: '#e3e3e6'});
    add(svg, 'text', {x: LEFT - 6, y: up(y) + 4, 'text-anchor': 'end'}, +y.toPrecision(3));
    add(svg, 'text', {x: across(x), y: HEIGHT - 10, 'text-anchor': ['start', 'middle', 'end'][2 * share]}, +x.toPrecision(3));
  }
  lines.forEach(([steps, values], place) => {
    const colour = COLOURS[place % COLOURS.length], points = steps.map((step, at) => `${across(step)},${up(values[at])}`);
    if (points.length === 1) add(svg, 'circle', {cx: across(steps[0]), cy: up(values[0]), r: 4, fill: colour});
    else add(svg, 'polyline', {points: points.join(' '), stroke: colour, fill: 'none', 'stroke-width': 1.6});
  });
}

for (const svg of document.querySelectorAll('svg[data-figure]')) {
  for (const mark of figures[svg.dataset.figure].marks) {
    const [x, y] = mark.points.split(',');
    const place = mark.closed ? add(svg, 'polygon', {points: mark.points})
      : mark.points.includes(' ') ? add(svg, 'polyline', {points: mark.points}) : add(svg, 'circle', {cx: x, cy: y, r: 9});
    place.onmouseenter = (event) => { if (!kept) show(mark, event); };
    place.onmouseleave = () => { if (!kept) hide(); };
    place.onclick = (event) => { kept = mark; show(mark, event); event.stopPropagation(); };
  }
}
popup.onclick = (event) => event.stopPropagation();
document.onclick = hide;
document.onkeydown = (event) => { if (event.key === 'Escape') hide(); };
