"""Rounds into medians, spreads and ratios, and those into tables."""

from statistics import median


def summarise(rounds, names, bases):
    """{peer: figures} of one job; `rounds` is a list of {peer: {metric: number}}."""
    out = {}
    for name in names:
        metrics = rounds[0][name].keys()
        figures = {}
        for metric in metrics:
            values = [r[name][metric] for r in rounds]
            figures[metric] = {"median": median(values), "min": min(values), "max": max(values)}
        figures["ratio"] = {}
        for base in bases:
            if "cpu_us" not in metrics or base not in names:
                continue
            # The median of the ratios of each round, not the ratio of medians: what slows the
            # whole machine for a round (another tenant, heat) is in both sides of its ratio.
            # Both are kept; the tables print the first.
            ratios = [r[name]["cpu_us"] / r[base]["cpu_us"] for r in rounds if r[base]["cpu_us"]]
            if ratios:
                figures["ratio"][base] = {
                    "median_of_ratios": median(ratios), "min": min(ratios), "max": max(ratios),
                    "ratio_of_medians": figures["cpu_us"]["median"]
                    / median([r[base]["cpu_us"] for r in rounds]),
                }
        out[name] = figures
    return out


def us(value):
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def timed_table(summary, bases):
    """Lines of one timed job."""
    bases = [b for b in bases if b in summary]
    rows = [["peer", "CPU us/request (min-max)", "user/sys", "busy", "requests/s", "p50 us", "p99 us",
             "RSS MiB", "errors"] + [f"x {b}" for b in bases]]
    for name, f in summary.items():
        row = [name]
        if "cpu_us" in f:
            c = f["cpu_us"]
            row += [f"{us(c['median'])} ({us(c['min'])}-{us(c['max'])})",
                    f"{f['user_share']['median'] * 100:.0f}/{100 - f['user_share']['median'] * 100:.0f}",
                    f"{f['busy']['median'] * 100:.0f}%"]
        else:
            row += ["", "", ""]
        # Not every load has percentiles.
        row += [f"{f[k]['median']:.0f}" if k in f else "" for k in ("rate", "p50_us", "p99_us")]
        row += [f"{f['rss_kib']['median'] / 1024:.1f}" if "rss_kib" in f else ""]
        row += [f"{f['errors']['max']:.0f}"]
        for base in bases:
            r = f["ratio"].get(base)
            row.append(f"{r['median_of_ratios']:.3f} ({r['min']:.2f}-{r['max']:.2f})" if r else "")
        rows.append(row)
    return columns(rows)


def idle_table(summary, bases):
    bases = [b for b in bases if b in summary]
    rows = [["peer", "private KiB/connection (min-max)", "RSS KiB/connection", "RSS before MiB",
             "after MiB"] + [f"x {b}" for b in bases]]
    for name, f in summary.items():
        c = f["private_kib"]
        row = [name, f"{c['median']:.2f} ({c['min']:.2f}-{c['max']:.2f})",
               f"{f['rss_per_kib']['median']:.2f}", f"{f['rss_before_kib']['median'] / 1024:.1f}",
               f"{f['rss_after_kib']['median'] / 1024:.1f}"]
        row += [f"{c['median'] / summary[b]['private_kib']['median']:.2f}"
                if summary[b]["private_kib"]["median"] else "" for b in bases]
        rows.append(row)
    return columns(rows)


def columns(rows):
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return lines
