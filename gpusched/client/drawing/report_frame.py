"""The HTML and the CSS around a report's sections."""

from __future__ import annotations

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1d2127; background: #fff; margin: 0 auto; max-width: 1280px;
       padding: 0 16px 48px; }
h1 { font-size: 22px; margin: 20px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 28px 0 4px; }
p { margin: 4px 0; overflow-wrap: anywhere; }
.counts { font-size: 17px; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
th, td { text-align: left; padding: 3px 10px 3px 0; border-bottom: 1px solid #e4e7eb; vertical-align: top;
         overflow-wrap: anywhere; }
th { overflow-wrap: normal; }
td:first-child, .reasons td:nth-child(2) { white-space: nowrap; }
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
<script>{plotly}</script>
</head>
<body>
<h1>{title}</h1>
{head}
{body}
</body>
</html>
"""
