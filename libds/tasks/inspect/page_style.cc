// Style of the page that inspect writes; see html.cc. Follows the reader's preference for light or dark.
#include "libds/tasks/inspect/html.h"

namespace ds::page {

const char* const kStyle = R"css(
:root{color-scheme:light dark;
--bg:#f5f6f8;--card:#fff;--ink:#1a2130;--mut:#667085;--line:#e2e6ec;--edge:#a9b3c1;--hover:#f0f4fb;--acc:#2458d3;--bad:#c62828;--warn:#a15c00;--badbg:#fdecec;--warnbg:#fff5e0;
--conv:#2f6fde;--mat:#0d8a8a;--norm:#7a4fd0;--act:#d1622b;--pool:#3c8d40;--quant:#b0791b;--rnn:#b83b8a;--ctl:#c0392b;--move:#7d8797;--math:#4a6785}
@media (prefers-color-scheme:dark){:root{
--bg:#0e1116;--card:#161b22;--ink:#e6eaf0;--mut:#94a0b0;--line:#2b323c;--edge:#56606e;--hover:#1d2530;--acc:#79a8ff;--bad:#ff8a80;--warn:#f2b65a;--badbg:#3a1b1d;--warnbg:#33280f;
--conv:#6ba1ff;--mat:#4cc3c3;--norm:#b094f5;--act:#f0935f;--pool:#7cc580;--quant:#e0b055;--rnn:#e87dbd;--ctl:#f0776b;--move:#98a3b3;--math:#8fb0d0}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",Arial,sans-serif}
main{max-width:1500px;margin:0 auto;padding:24px 24px 64px}
h1{font-size:24px;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:16px;margin:36px 0 12px}
.sub{color:var(--mut);margin:4px 0 20px}
code,.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:12.5px;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:12px}
.card,.panel{background:var(--card);border:1px solid var(--line);border-radius:10px}
.card{padding:12px 16px}
.card b{display:block;font-size:22px;font-weight:650;line-height:1.3}
.card span{color:var(--mut);font-size:12.5px}
.note{border-radius:8px;padding:9px 14px;margin:12px 0 0;background:var(--warnbg);color:var(--warn)}
.note.bad{background:var(--badbg);color:var(--bad)}
.bar{display:flex;flex-wrap:wrap;gap:8px;align-items:center;padding:10px 12px;border-bottom:1px solid var(--line)}
.crumbs{flex:1 1 200px;min-width:0;overflow-wrap:anywhere}
.crumbs button{border:0;background:none;padding:2px 4px;color:var(--acc);cursor:pointer;font:inherit}
.crumbs span{padding:2px 4px;font-weight:600}
.bar button.t,.more{border:1px solid var(--line);background:var(--card);color:var(--ink);border-radius:7px;padding:5px 11px;cursor:pointer;font:inherit}
.bar button.t:hover,.more:hover{background:var(--hover)}
input[type=search]{border:1px solid var(--line);background:var(--bg);color:var(--ink);border-radius:7px;padding:6px 11px;font:inherit;min-width:270px}
:focus-visible{outline:2px solid var(--acc);outline-offset:1px}
.work{display:grid;grid-template-columns:minmax(0,1fr) 340px}
.canvas{height:min(76vh,860px);overflow:auto;cursor:grab;position:relative}
.canvas.drag{cursor:grabbing;user-select:none}
aside{border-left:1px solid var(--line);height:min(76vh,860px);overflow:auto;padding:16px}
@media (max-width:900px){.work{grid-template-columns:1fr}aside{border-left:0;border-top:1px solid var(--line);height:auto}.canvas{height:60vh}}
aside h3{margin:0;font-size:16px;overflow-wrap:anywhere}
aside h4{margin:16px 0 4px;font-size:11.5px;letter-spacing:.05em;text-transform:uppercase;color:var(--mut);font-weight:600}
aside .hint{color:var(--mut)}
aside dl{display:grid;grid-template-columns:auto 1fr;gap:2px 12px;margin:0}
aside dt{color:var(--mut)}aside dd{margin:0;text-align:right;overflow-wrap:anywhere}
.io{margin:0 0 6px;overflow-wrap:anywhere}
.io small{color:var(--mut);display:block}
.link{border:0;background:none;padding:0;color:var(--acc);cursor:pointer;font:inherit;text-align:left;overflow-wrap:anywhere}
.tag{display:inline-block;border-radius:5px;padding:0 7px;font-size:12px;background:var(--warnbg);color:var(--warn)}
.tag.bad{background:var(--badbg);color:var(--bad)}
svg.view{display:block;margin:0 auto}
svg.view[hidden]{display:none}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",Arial,sans-serif;fill:var(--ink);text-anchor:middle;pointer-events:none}
svg text.o{font-size:13px;font-weight:600}
svg text.s{font-size:11px;fill:var(--mut)}
svg .e{fill:none;stroke:var(--edge);stroke-width:1.3}
svg .e:hover,svg .e.on{stroke:var(--acc);stroke-width:2.4}
svg .arrow{fill:var(--edge)}
svg .b{cursor:pointer}
svg .b rect.f{fill:var(--card);stroke:var(--line);stroke-width:1.2}
svg .b:hover rect.f{fill:var(--hover)}
svg .b.sel rect.f{stroke:var(--acc);stroke-width:2.5}
svg .b.g rect.f{stroke:var(--edge);stroke-dasharray:5 3}
svg .b.x rect.f{stroke:var(--bad);stroke-width:1.8;stroke-dasharray:4 3}
svg .b.t rect.f{fill:var(--bg)}
svg .b.t text.o{font-weight:500;font-size:12px}
svg .stub{font-size:10.5px;fill:var(--mut)}
.k-conv{fill:var(--conv)}.k-mat{fill:var(--mat)}.k-norm{fill:var(--norm)}.k-act{fill:var(--act)}.k-pool{fill:var(--pool)}
.k-quant{fill:var(--quant)}.k-rnn{fill:var(--rnn)}.k-ctl{fill:var(--ctl)}.k-move{fill:var(--move)}.k-math{fill:var(--math)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,520px),1fr));gap:0 24px;align-items:start}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;background:var(--card);font-variant-numeric:tabular-nums}
th,td{padding:6px 12px;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}
th{font-size:12px;color:var(--mut);font-weight:600;white-space:nowrap}
th.n,td.n{text-align:right;white-space:nowrap}
th button{all:unset;cursor:pointer}th button:focus-visible{outline:2px solid var(--acc)}
th[aria-sort=ascending] button::after{content:" \2191"}th[aria-sort=descending] button::after{content:" \2193"}
tbody tr.go{cursor:pointer}tbody tr.go:hover{background:var(--hover)}
td .m{display:inline-block;width:9px;height:9px;border-radius:3px;margin-right:8px}
.share{display:inline-block;width:110px;height:7px;border-radius:4px;background:var(--line);overflow:hidden;vertical-align:middle}
.share i{display:block;height:100%;background:var(--acc)}
footer{margin-top:40px;color:var(--mut);font-size:12.5px}
@media print{.bar,aside{display:none}.work{display:block}.canvas{height:auto;overflow:visible}}
)css";

}  // namespace ds::page
