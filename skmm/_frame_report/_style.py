"""How the page looks, in light and in dark."""

__all__ = ["STYLE"]

# All rules begin with the class: a notebook shows the report inside its own page.
STYLE = """
.skmm-frame { --ink: #1c2024; --soft: #5c6570; --paper: #fff; --line: #d5dae0; --mark: #1f6feb;
  --bad: #b42318; --c1: #c2410c; --c2: #15803d; --c3: #7e22ce; --c4: #a16207; --c5: #0e7490;
  color: var(--ink); background: var(--paper); font: 15px/1.45 system-ui, sans-serif;
  padding: 1.2em; overflow-wrap: anywhere; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { .skmm-frame { --ink: #e6e9ed; --soft: #a0a8b2;
  --paper: #15181c; --line: #363c44; --mark: #6ea8fe; --bad: #ff8a7a; --c1: #fb923c;
  --c2: #4ade80; --c3: #d8b4fe; --c4: #facc15; --c5: #67e8f9; } }
.skmm-frame h1 { font-size: 1.4em; margin: 0 0 .2em; }
.skmm-frame h2 { font-size: 1.1em; margin: 0; }
.skmm-frame p { margin: .2em 0; color: var(--soft); }
.skmm-frame .bad { color: var(--bad); }
.skmm-frame .wide { overflow-x: auto; }
.skmm-frame table { border-collapse: collapse; margin: .8em 0; font-size: .95em; }
.skmm-frame caption { text-align: left; color: var(--soft); padding-bottom: .3em; }
.skmm-frame th, .skmm-frame td { text-align: left; vertical-align: top;
  padding: .25em .9em .25em 0; border: 0; background: none; color: inherit;
  font-variant-numeric: tabular-nums; }
.skmm-frame th { font-weight: 600; }
.skmm-frame .all tr { border-bottom: 1px solid var(--line); }
.skmm-frame .all .n { text-align: right; white-space: nowrap; }
.skmm-frame .bars th { font-weight: 400; max-width: 22em; }
.skmm-frame .bar { display: inline-block; height: .7em; background: var(--mark); }
.skmm-frame a { color: var(--mark); }
.skmm-frame section { border-top: 1px solid var(--line); margin-top: 1.1em; padding-top: .9em; }
.skmm-frame .kind { display: inline-block; border: 1px solid var(--line); border-radius: 1em;
  padding: 0 .7em; margin-left: .5em; font-size: .85em; font-weight: 400; }
.skmm-frame ul { list-style: none; display: flex; flex-wrap: wrap; gap: .9em; padding: 0;
  margin: .7em 0 0; }
.skmm-frame li { border: 1px solid var(--line); border-radius: 6px; padding: .6em;
  max-width: 30em; margin: 0; }
.skmm-frame li p { font-size: .85em; }
.skmm-frame li .text { color: var(--ink); font-size: .95em; }
.skmm-frame img, .skmm-frame svg { margin: 2px; max-width: 100%; vertical-align: top; }
.skmm-frame svg.fill { fill: var(--mark); stroke: none; }
.skmm-frame svg.stroke { fill: none; stroke: var(--mark); stroke-width: 1.3; }
.skmm-frame svg.stroke path { stroke-linecap: round; stroke-linejoin: round; }
.skmm-frame .dots { stroke-width: 2.4; }
.skmm-frame .line1 { stroke: var(--c1); } .skmm-frame .line2 { stroke: var(--c2); }
.skmm-frame .line3 { stroke: var(--c3); } .skmm-frame .line4 { stroke: var(--c4); }
.skmm-frame .line5 { stroke: var(--c5); }
"""
