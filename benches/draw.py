#!/usr/bin/env python3
"""Draws what a tick costs against the number of players, from the table that the bench of replication prints.

    cargo bench --bench replication | python3 benches/draw.py

writes `tick.svg` and `idle.svg` beside this file, and passes the table on.
"""

import math
import pathlib
import sys

# Renet alone is measured with nothing arriving, so it is comparable in such ticks only.
PICTURES = {
    "tick.svg": ("server's tick", "A tick in which a fifth of the players change", 2),
    "idle.svg": ("idle tick in which nothing arrives", "A tick in which nothing changes or arrives", 3),
}
LINES = [("bevy_replicon", "#e07020"), ("bevy_player_data", "#2f9e58"), ("renet alone", "#8a8f98")]
WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 200, 48, 48


def rows(text):
    """The rows of the table: players, what, and the microseconds of renet alone, the crate and `bevy_replicon`."""
    for line in text:
        sys.stdout.write(line)
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        try:
            players, what = int(cells[0]), cells[1]
            renet, ours, theirs = (float(cell) for cell in cells[2:5])
        except (ValueError, IndexError):
            continue
        yield players, what, {"renet alone": renet, "bevy_player_data": ours, "bevy_replicon": theirs}


def name(microseconds):
    return f"{microseconds / 1000:g} ms" if microseconds >= 1000 else f"{microseconds:g} µs"


def picture(title, lines, points):
    """An SVG with one line for each of `lines`, over `points`: the players and what each took."""
    most = max(players for players, _ in points)
    values = [times[label] for _, times in points for label, _ in lines]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def x(players):
        return LEFT + (WIDTH - LEFT - RIGHT) * players / most

    def y(value):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (math.log10(value) - low) / (high - low)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        "<style>text{fill:#4a4f57}line{stroke:#8a8f98;stroke-opacity:.35}"
        "@media(prefers-color-scheme:dark){text{fill:#c3c8cf}}</style>",
        f'<text x="{LEFT}" y="24" font-size="16">{title}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">players</text>',
    ]
    for power in range(low, high + 1):
        at = y(10**power)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{name(10.0**power)}</text>')
    for players, _ in points:
        out.append(f'<text x="{x(players):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{players}</text>')
    for label, color in lines:
        places = [(x(players), y(times[label])) for players, times in points]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
        out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2.5"/>')
        out.extend(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{color}"/>' for px, py in places)
        last = points[-1][1][label]
        px, py = places[-1]
        text = f"{label}, {name(float(f'{last:.2g}'))}"
        out.append(f'<text x="{px + 10:.1f}" y="{py + 4:.1f}" style="fill:{color}">{text}</text>')
    return "\n".join([*out, "</svg>", ""])


def main():
    table = list(rows(sys.stdin))
    for file, (wanted, title, lines) in PICTURES.items():
        points = sorted(((players, times) for players, what, times in table if what == wanted), key=lambda p: p[0])
        if len(points) < 2:
            sys.exit(f"the table has no two rows of `{wanted}`: run the bench without `--quick`")
        (pathlib.Path(__file__).parent / file).write_text(picture(title, LINES[:lines], points), encoding="utf-8")


main()
