#!/usr/bin/env python3
"""Draws text as a terminal screenshot: scripts/picture.py < run.txt > docs/run.svg"""
import html
import sys

# Browsers collapse ordinary spaces, and with them the columns of a table.
lines = [line.rstrip().replace(" ", "\u00a0") for line in sys.stdin.read().splitlines()]
width = 9 * max(map(len, lines), default=1) + 40
height = 20 * len(lines) + 40
print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">')
print(f'<rect width="{width}" height="{height}" rx="8" fill="#1b1f27"/>')
print('<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14.5" fill="#d6dbe5">')
for i, line in enumerate(lines):
    colour = ' fill="#7fd18b"' if line.startswith("$") else ""
    print(f'<text x="20" y="{34 + 20 * i}"{colour}>{html.escape(line)}</text>')
print("</g></svg>")
