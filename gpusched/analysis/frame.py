"""The HTML, the CSS and the scripts around a report's sections."""

from __future__ import annotations

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1d2127; background: #fff; margin: 0 auto; max-width: 1280px;
       padding: 0 16px 48px; }
h1 { font-size: 22px; margin: 20px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 32px 0 6px; }
p { margin: 4px 0; overflow-wrap: anywhere; }
.about, .hint { color: #68717d; font-size: 13px; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 12px 0; }
.tile { border: 1px solid #dfe3e8; border-radius: 8px; padding: 8px 14px; flex: 1 1 150px; }
.tile b { display: block; font-size: 26px; line-height: 1.25; }
.tile span { color: #68717d; font-size: 13px; }
.tile .counts b { display: inline; font-size: 17px; color: inherit; }
.tile .counts { display: block; color: inherit; font-size: 14px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 0 28px; }
.worth { display: grid; grid-template: auto 1fr / minmax(0, 1fr) minmax(0, 1fr); gap: 0 28px; }
.worth > .tall { grid-row: span 2; }
.few { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 6px 10px; }
svg { width: 100%; height: auto; display: block; font-family: system-ui, sans-serif; }
.pair svg, .worth svg { max-width: 620px; }
.pair > svg { max-width: 420px; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
th, td { text-align: left; padding: 3px 10px 3px 0; border-bottom: 1px solid #e4e7eb; vertical-align: top;
         overflow-wrap: anywhere; }
th { overflow-wrap: normal; }
.plain td:first-child, .reasons td:first-child, .reasons td:nth-child(2) { white-space: nowrap; }
.scroll { overflow: auto; max-height: 640px; }
.scroll td { white-space: nowrap; }
.heat { width: auto; font-variant-numeric: tabular-nums; }
.heat th, .heat td { padding: 2px 6px; white-space: nowrap; border: 1px solid #fff; font-size: 12px; }
.heat td { text-align: center; min-width: 34px; }
.heat th { position: sticky; left: 0; background: #fff; font-weight: 500; }
.heat tr:first-child th { top: 0; z-index: 1; color: #68717d; font-weight: 400; }
.skip { background: #eef0f3; color: #8a93a0; }
.fail { background: #d64545; color: #fff; }
.none { background: #fff; color: #8a93a0; outline: 1px dashed #c3c9d1; outline-offset: -2px; }
.key span { display: inline-block; padding: 1px 8px; font-size: 12px; white-space: nowrap; }
.flat { color: #8a93a0; font-style: italic; }
#windows input { font: inherit; padding: 5px 9px; width: min(100%, 340px); box-sizing: border-box;
                 border: 1px solid #c3c9d1; border-radius: 6px; }
#windows th { cursor: pointer; white-space: nowrap; position: sticky; top: 0; background: #fff; }
#windows td { white-space: nowrap; font-variant-numeric: tabular-nums; }
#windows button { font: inherit; margin: 8px 0; }
@media (max-width: 760px) { .worth { display: block; } }
@media (max-width: 500px) { body { padding: 0 10px 32px; } .tile b { font-size: 22px; } }
"""

#: draws a figure once plotly has been unpacked, and fills the table of the windows. Text of a batch becomes text nodes
SCRIPT = r"""
const waiting = []
const later = draw => waiting.push(draw)
async function unpack() {
  const packed = document.getElementById("plotly").textContent.trim()
  const bytes = Uint8Array.from(atob(packed), character => character.charCodeAt(0))
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))
  const script = document.createElement("script")
  script.textContent = await new Response(stream).text()
  document.head.append(script)
  for (const draw of waiting) draw()
}
function table() {
  const place = document.getElementById("windows")
  if (!place) return
  const { columns, fixed, links, rows } = JSON.parse(document.getElementById("rows").textContent)
  const [input, body, more, count] = ["input", "tbody", "button", "span"].map(name => place.querySelector(name))
  const texts = rows.map(row => row.join(" ").toLowerCase())
  let column = 0, down = false, shown = 100
  const cell = (value, name) => {
    const td = document.createElement("td")
    const url = name === columns[0] && links[value]
    const inner = url ? td.appendChild(document.createElement("a")) : td
    if (url) inner.href = url
    inner.textContent = value === null ? "" : fixed.includes(name) ? value.toFixed(4) : value
    return td
  }
  const draw = () => {
    const words = input.value.toLowerCase().split(/\s+/)
    const found = rows.filter((_, number) => words.every(word => texts[number].includes(word)))
    const order = (a, b) => a === b ? 0 : a === null ? 1 : b === null ? -1 : (a < b ? -1 : 1) * (down ? -1 : 1)
    found.sort((a, b) => order(a[column], b[column]))
    body.replaceChildren(...found.slice(0, shown).map(row => {
      const tr = document.createElement("tr")
      tr.append(...row.map((value, number) => cell(value, columns[number])))
      return tr
    }))
    count.textContent = `${found.length} of ${rows.length} windows`
    more.hidden = found.length <= shown
  }
  place.querySelectorAll("th").forEach((th, number) => th.addEventListener("click", () => {
    down = number === column ? !down : number > 3
    column = number
    draw()
  }))
  input.addEventListener("input", () => { shown = 100; draw() })
  more.addEventListener("click", () => { shown += 500; draw() })
  draw()
}
addEventListener("DOMContentLoaded", () => {
  table()
  const note = document.getElementById("unpacking")
  unpack().then(() => {
    note.remove()
    document.dispatchEvent(new Event("drawn"))
  }, error => { note.textContent = `The figures from here on need a newer browser: ${error}` })
})
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>gpusched: {title}</title>
<style>{style}</style>
<script>{script}</script>
</head>
<body>
<h1>{title}</h1>
{head}
{body}
<p id="unpacking" class=hint>The figures of the timeline and below are being unpacked</p>
<script type="text/plain" id="plotly">{plotly}</script>
</body>
</html>
"""
