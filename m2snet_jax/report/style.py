"""The frame and the style of a page: light and dark, from a phone's width up, and nothing fetched from anywhere."""

from m2snet_jax.plot.charts import DARK, LIGHT
from m2snet_jax.plot.charts import STYLE as CHARTS

_COLOURS = f':root{{color-scheme:light dark;{LIGHT}}}@media (prefers-color-scheme:dark){{:root{{{DARK}}}}}'
_RULES = """
*{box-sizing:border-box}
body{margin:0 auto;max-width:1200px;padding:1rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
h1{font-size:1.6rem;line-height:1.25}h2{margin-top:2.5rem;border-bottom:1px solid var(--line);font-size:1.3rem}
h1,h2,dd,figcaption{overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0}
.warning{border-left:4px solid var(--s1);padding:.4rem .8rem;background:var(--card)}
.small,.caption,figcaption{font-size:.88rem;color:var(--soft)}
.tables{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,480px),1fr));gap:1.5rem;align-items:start}
.table{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
.caption{margin:0 0 .3rem}
td,th{padding:.2rem .5rem;border-bottom:1px solid var(--line);text-align:right;font-weight:400;white-space:nowrap}
td:first-child,th:first-child{text-align:left}
tr:first-child>th{color:var(--soft);white-space:normal;vertical-align:bottom}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:1.2rem;margin-top:1.5rem}
figure{margin:0;background:var(--card);border-radius:8px;padding:.7rem}
figcaption{margin-top:.4rem}
.cases{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,520px),1fr));gap:1rem}
.case>div{display:grid;grid-template-columns:repeat(4,1fr);gap:4px}
.case img{display:block;width:100%;height:auto;border-radius:3px}
.case i{display:block;text-align:center;font-size:.8rem;font-style:normal;color:var(--soft)}
b.hit,b.missed,b.false{padding:0 .3em;border-radius:3px;color:#111}
b.hit{background:#fff;outline:1px solid #888}b.missed{background:#e69f00}b.false{background:#56b4e9}
pre{overflow-x:auto;font-size:.82rem}
sup{line-height:0}
@media (max-width:600px){
table{font-size:.8rem}td,th{padding:.2rem .25rem}
.case>div{grid-template-columns:repeat(2,1fr)}dl{grid-template-columns:1fr}
dd{margin-bottom:.4rem}}
"""
STYLE = _COLOURS + CHARTS + _RULES
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,"><title>{title}</title><style>{style}</style></head><body>
{body}
</body></html>
"""
