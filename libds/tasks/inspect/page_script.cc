// Script of the page that inspect writes; see html.cc. Plain JavaScript, no library, nothing is fetched. Whatever comes
// from the model reaches the page as text, never as markup.
#include "libds/tasks/inspect/html.h"

namespace ds::page {

const char* const kScript = R"js(
'use strict';
const D = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id);
const canvas = $('canvas'), panel = $('details');
const maker = new Map();   // value -> node that makes it
const users = new Map();   // value -> nodes that read it
D.nodes.forEach((n, i) => {
  n.out.forEach(v => { if (v >= 0) maker.set(v, i); });
  n.in.forEach(v => { if (v >= 0) { if (!users.has(v)) users.set(v, []); users.get(v).push(i); } });
});
let view = 0;
const zooms = new Map();

function el(tag, text, cls) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (cls) e.className = cls;
  return e;
}
function count(x) {
  if (x < 10000) return String(x);
  const units = ['', ' k', ' M', ' G', ' T', ' P', ' E'];
  let i = 0;
  while (x >= 1000 && i < units.length - 1) { x /= 1000; i++; }
  return x.toPrecision(3) + units[i];
}
const svgOf = v => $('view' + v);

// --- zoom: the drawing is scrolled like any other content; only its size changes ---
function zoomTo(k, px, py) {
  const svg = svgOf(view), old = zooms.get(view) || 1;
  k = Math.min(3, Math.max(0.05, k));
  if (px === undefined) { px = canvas.clientWidth / 2; py = canvas.clientHeight / 2; }
  const x = (canvas.scrollLeft + px) / old, y = (canvas.scrollTop + py) / old;
  zooms.set(view, k);
  svg.setAttribute('width', svg.dataset.w * k);
  svg.setAttribute('height', svg.dataset.h * k);
  canvas.scrollLeft = x * k - px;
  canvas.scrollTop = y * k - py;
}
const zoomBy = (f, px, py) => zoomTo((zooms.get(view) || 1) * f, px, py);
function fit() {
  const svg = svgOf(view);
  zoomTo(Math.min(1, (canvas.clientWidth - 4) / svg.dataset.w, (canvas.clientHeight - 4) / svg.dataset.h));
}
function readable() {
  const svg = svgOf(view);
  zoomTo(Math.min(1, Math.max(0.6, (canvas.clientWidth - 20) / svg.dataset.w)));
  canvas.scrollTop = 0;
  const first = svg.querySelector('.b');
  if (first) center(first, true);
}
function center(box, acrossOnly) {
  const r = box.getBoundingClientRect(), c = canvas.getBoundingClientRect();
  canvas.scrollLeft += r.left + r.width / 2 - c.left - c.width / 2;
  if (!acrossOnly) canvas.scrollTop += r.top + r.height / 2 - c.top - c.height / 2;
}
$('in').onclick = () => zoomBy(1.25);
$('out').onclick = () => zoomBy(0.8);
$('fit').onclick = fit;
$('one').onclick = () => { zoomTo(1); };
canvas.addEventListener('wheel', e => {
  if (!e.ctrlKey && !e.metaKey) return;
  e.preventDefault();
  const c = canvas.getBoundingClientRect();
  zoomBy(Math.exp(-e.deltaY / 300), e.clientX - c.left, e.clientY - c.top);
}, {passive: false});
let drag = null;
canvas.addEventListener('pointerdown', e => {
  if (e.button !== 0 || e.pointerType !== 'mouse') return;
  drag = {x: e.clientX, y: e.clientY, left: canvas.scrollLeft, top: canvas.scrollTop, moved: false};
});
window.addEventListener('pointermove', e => {
  if (!drag) return;
  const dx = e.clientX - drag.x, dy = e.clientY - drag.y;
  if (Math.abs(dx) + Math.abs(dy) > 4) { drag.moved = true; canvas.classList.add('drag'); }
  if (!drag.moved) return;
  canvas.scrollLeft = drag.left - dx;
  canvas.scrollTop = drag.top - dy;
});
window.addEventListener('pointerup', () => {
  if (drag && drag.moved) window.addEventListener('click', e => e.stopPropagation(), {capture: true, once: true});
  setTimeout(() => { drag = null; canvas.classList.remove('drag'); }, 0);
});

// --- views ---
function show(v) {
  svgOf(view).setAttribute('hidden', '');
  view = v;
  svgOf(v).removeAttribute('hidden');
  const path = [];
  for (let p = v; p >= 0; p = D.views[p].parent) path.unshift(p);
  const crumbs = $('crumbs');
  crumbs.replaceChildren();
  path.forEach((p, i) => {
    if (i > 0) crumbs.append('\u203a');
    if (p === v) return crumbs.append(el('span', D.views[p].title));
    const b = el('button', D.views[p].title);
    b.onclick = () => show(p);
    crumbs.append(b);
  });
  if (!zooms.has(v)) readable();
}

function mark(box) {
  document.querySelectorAll('svg .sel,svg .e.on').forEach(b => b.classList.remove('sel', 'on'));
  if (!box) return;
  box.classList.add('sel');
  const n = box.dataset.n;
  if (n === undefined) return;
  const near = new Set([...D.nodes[n].in, ...D.nodes[n].out].map(String));
  const name = box.dataset.i;
  svgOf(view).querySelectorAll('.e').forEach(e => {
    if (near.has(e.dataset.v) && (e.dataset.a === name || e.dataset.b === name)) e.classList.add('on');
  });
}

function focusNode(i) {
  show(D.nodes[i].view);
  const box = svgOf(view).querySelector('[data-n="' + i + '"]');
  mark(box);
  describe(i);
  if (box) center(box);
  remember(i);
}
// The node looked at is part of the address, so that it can be passed on.
function remember(i) {
  try { history.replaceState(null, '', '#' + encodeURIComponent(D.nodes[i].name)); } catch (e) { /* not from a file */ }
}

// --- details ---
function valueLine(v, jump, label) {
  const p = el('div', undefined, 'io');
  if (v < 0) { p.append(el('small', '(omitted)')); return p; }
  const value = D.values[v];
  if (jump !== undefined) {
    const b = el('button', value.name || '(no name)', 'link mono');
    b.onclick = () => focusNode(jump);
    b.title = label;
    p.append(b);
  } else {
    p.append(el('span', value.name || '(no name)', 'mono'));
  }
  let text = value.type;
  if (value.at) text += ' = ' + value.at;
  if (value.constant) text += ', constant';
  p.append(el('small', text));
  return p;
}
function describe(i) {
  const n = D.nodes[i];
  panel.replaceChildren();
  panel.append(el('h3', n.op));
  if (n.name) panel.append(el('div', n.name, 'mono'));
  if (n.unsupported) panel.append(el('span', 'not supported by ds', 'tag bad'));
  else if (n.noGradient) panel.append(el('span', 'no gradient', 'tag'));
  panel.append(el('h4', 'Cost'));
  const dl = el('dl');
  const row = (k, v) => { dl.append(el('dt', k), el('dd', v)); };
  if (n.flops !== null) row('FLOPs', count(n.flops) + (D.flops ? ' (' + (100 * n.flops / D.flops).toFixed(1) + ' %)' : ''));
  row('Parameters', count(n.parameters));
  panel.append(dl);
  const bodies = n.bodies || [];
  if (bodies.length) {
    panel.append(el('h4', 'Bodies'));
    bodies.forEach(b => {
      const button = el('button', D.views[b].title, 'link');
      button.onclick = () => show(b);
      panel.append(button, el('br'));
    });
  }
  panel.append(el('h4', 'Inputs'));
  n.in.forEach(v => panel.append(valueLine(v, maker.get(v), 'go to the node that makes it')));
  panel.append(el('h4', 'Outputs'));
  n.out.forEach(v => panel.append(valueLine(v)));
  const next = [...new Set(n.out.flatMap(v => users.get(v) || []))];
  if (next.length) {
    panel.append(el('h4', 'Read by'));
    next.slice(0, 30).forEach(u => {
      const b = el('button', D.nodes[u].op + ' ' + D.nodes[u].name, 'link');
      b.onclick = () => focusNode(u);
      const p = el('div', undefined, 'io');
      p.append(b);
      panel.append(p);
    });
    if (next.length > 30) panel.append(el('div', 'and ' + (next.length - 30) + ' more', 'hint'));
  }
  if (n.attributes.length) {
    panel.append(el('h4', 'Attributes'));
    const list = el('dl');
    n.attributes.forEach(([k, v]) => list.append(el('dt', k), el('dd', v, 'mono')));
    panel.append(list);
  }
  if (n.doc) { panel.append(el('h4', 'Documentation'), el('div', n.doc)); }
}
function describeValue(v) {
  panel.replaceChildren(el('h3', 'Value'), valueLine(v, maker.get(v), 'go to the node that makes it'));
  const next = users.get(v) || [];
  if (next.length) panel.append(el('h4', 'Read by'));
  next.slice(0, 50).forEach(u => {
    const b = el('button', D.nodes[u].op + ' ' + D.nodes[u].name, 'link');
    b.onclick = () => focusNode(u);
    const p = el('div', undefined, 'io');
    p.append(b);
    panel.append(p);
  });
}
canvas.addEventListener('click', e => {
  const box = e.target.closest('.b'), line = e.target.closest('.e');
  if (box && box.dataset.g !== undefined) return show(Number(box.dataset.g));
  if (box && box.dataset.n !== undefined) { const i = Number(box.dataset.n); mark(box); remember(i); return describe(i); }
  if (box) { mark(box); return describeValue(Number(box.dataset.v)); }
  if (line) { mark(null); line.classList.add('on'); describeValue(Number(line.dataset.v)); }
});
canvas.addEventListener('keydown', e => {
  if (e.key !== 'Enter' && e.key !== ' ') return;
  if (e.target.closest('.b')) { e.preventDefault(); e.target.closest('.b').dispatchEvent(new MouseEvent('click', {bubbles: true})); }
});

// --- search ---
const search = $('search');
let hits = [], at = -1;
function find() {
  const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  hits = words.length === 0 ? [] : D.nodes.map((n, i) => i).filter(i => {
    const text = (D.nodes[i].op + ' ' + D.nodes[i].name).toLowerCase();
    return words.every(w => text.includes(w));
  });
  at = -1;
  $('hits').textContent = words.length ? hits.length + ' found' : '';
}
search.addEventListener('input', find);
search.addEventListener('keydown', e => {
  if (e.key !== 'Enter' || hits.length === 0) return;
  at = (at + (e.shiftKey ? hits.length - 1 : 1)) % hits.length;
  if (at < 0) at = 0;
  $('hits').textContent = (at + 1) + ' of ' + hits.length;
  focusNode(hits[at]);
});

// --- the table of nodes ---
const kColumns = [
  {key: 'index', title: '#', get: i => i, number: true},
  {key: 'op', title: 'Operator', get: i => D.nodes[i].op},
  {key: 'name', title: 'Name', get: i => D.nodes[i].name},
  {key: 'shape', title: 'Output', get: i => { const v = D.nodes[i].out.find(v => v >= 0); return v === undefined ? '' : D.values[v].at || D.values[v].type; }},
  {key: 'parameters', title: 'Parameters', get: i => D.nodes[i].parameters, number: true, scaled: true},
  {key: 'flops', title: 'FLOPs', get: i => D.nodes[i].flops ?? 0, number: true, scaled: true},
];
let order = D.nodes.map((n, i) => i), sorted = 'index', down = false, limit = 100;
function table() {
  const words = $('filter').value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const rows = order.filter(i => {
    const text = (D.nodes[i].op + ' ' + D.nodes[i].name).toLowerCase();
    return words.every(w => text.includes(w));
  });
  const body = el('tbody');
  rows.slice(0, limit).forEach(i => {
    const tr = el('tr', undefined, 'go');
    kColumns.forEach(c => {
      const x = c.get(i);
      const td = el('td', c.scaled ? count(x) : c.key === 'index' ? x + 1 : x, c.number ? 'n' : c.key === 'op' ? '' : 'mono');
      if (c.key === 'op') {
        const m = el('span', undefined, 'm');
        m.style.background = 'var(--' + D.nodes[i].kind + ')';
        td.prepend(m);
      }
      tr.append(td);
    });
    tr.onclick = () => { focusNode(i); $('graph').scrollIntoView({behavior: 'smooth'}); };
    body.append(tr);
  });
  $('nodes').replaceChild(body, $('nodes').tBodies[0]);
  $('shown').textContent = rows.length > limit ? limit + ' of ' + rows.length + ' shown' : rows.length + (rows.length === 1 ? ' node' : ' nodes');
  $('all').hidden = rows.length <= limit;
}
function head() {
  const tr = el('tr');
  kColumns.forEach(c => {
    const th = el('th', undefined, c.number ? 'n' : '');
    if (c.key === sorted) th.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const b = el('button', c.title);
    b.onclick = () => {
      down = sorted === c.key ? !down : Boolean(c.scaled);
      sorted = c.key;
      const sign = down ? -1 : 1;
      order.sort((a, b) => {
        const x = c.get(a), y = c.get(b);
        return sign * (c.number ? x - y : String(x).localeCompare(String(y))) || a - b;
      });
      head();
      table();
    };
    th.append(b);
    tr.append(th);
  });
  $('nodes').tHead.replaceChildren(tr);
}
$('filter').addEventListener('input', table);
$('all').onclick = () => { limit = Infinity; table(); };
document.querySelectorAll('[data-op]').forEach(tr => {
  tr.onclick = () => { $('filter').value = tr.dataset.op; table(); $('filter').scrollIntoView({behavior: 'smooth', block: 'center'}); };
});
document.body.classList.add('js');
show(0);
head();
table();
if (location.hash.length > 1) {
  const name = decodeURIComponent(location.hash.slice(1)), i = D.nodes.findIndex(n => n.name === name);
  if (i >= 0) focusNode(i);
}
)js";

}  // namespace ds::page
