"""What round_cost.py found, for people: one table, where processor time goes, the machine's limits, and a plot."""

from __future__ import annotations

from typing import Any

from measuring import output


def table(found: dict[str, Any]) -> str:
    rows = measured(found)
    parts = [main_table(rows), "", where_table(rows), ""] if rows else []
    parts += [limits_line(found["limits"]), f"load at the end {found['machine']['load'][0]}"]
    parts += [f"{label(row)}: FAILED, {row['failed'].splitlines()[0]}" for row in found["rows"] if "failed" in row]
    for row in rows:
        for role, found_in in row.get("profile", {}).items():
            shares = ", ".join(f"{name} {share:.0%}" for name, share in found_in["steps"].items())
            parts.append(f"{label(row)}, samples of {role}s: {shares}")
        if "cgroups" in row:
            parts.append(cgroup_line(row, found["cgroup_mb"]))
        if not row["met"]["all_bytes_moved"]:
            parts.append(
                f"{label(row)}: the coordinator counted {row['gb_moved']} GB only: the round moved less than it says"
            )
    return "\n".join(parts)


def measured(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in found["rows"] if "failed" not in row]


def label(row: dict[str, Any]) -> str:
    return f"{row['mb']} MB × {row['participants']}"


def main_table(rows: list[dict[str, Any]]) -> str:
    header = ["", "round\ns", "bare gRPC\ns", "ratio", "held\nagainst", "ratio", "may\nbe", "", "coordinator\nMB"]
    header += ("agent\nMB", "processor s/GB\ncoordinator", "\nagents", "\nworkers", "bare\nserver", "bare\npeers")
    lines = []
    for row in rows:
        used, bound = row["processor"], row["bound"]
        lines.append(
            [
                label(row),
                f"{row['round_seconds']:.2f}",
                f"{row['bare_grpc_seconds']:.2f}",
                f"{row['ratio']:.2f}",
                f"{bound['what']}, {bound['seconds']:.2f} s",
                f"{bound['ratio']:.2f}",
                f"{bound['allowed']:.2f}",
                "met" if row["met"]["time"] and row["met"]["memory"] else "NOT MET",
                f"{row['coordinator_peak_mb']:.0f}",
                f"{row['agent_peak_mb']:.0f}",
                *(
                    f"{used[side]['seconds_per_gb']:.2f}"
                    for side in ("coordinator", "agents", "workers", "bare_server", "bare_peers")
                ),
            ]
        )
    return output.columns(header, lines)


def where_table(rows: list[dict[str, Any]]) -> str:
    """Processor seconds for each GB moved, by step; `least` is what all steps but `rest` come to, beside bare gRPC."""
    steps = list(rows[0]["where"])
    header = ["processor s/GB, derived", *steps[:-1], "all, measured", "least"]
    lines = []
    for row in rows:
        moved = 2 * row["participants"] * row["mb"] / 1000
        where = row["where"]
        least = (sum(where[step] for step in steps[:-2])) / sum(where[step] for step in ("TLS", "sockets", "gRPC"))
        lines.append([label(row), *(f"{where[step] / moved:.2f}" for step in steps), f"{least:.2f}"])
    return output.columns(header, lines)


def limits_line(limits: dict[str, float]) -> str:
    rates = ", ".join(f"{name} {limits[name]:.1f}" for name in ("memcpy", "blake3", "seal", "open", "sockets"))
    files = ", ".join(
        f"{name.replace('_', ' ')} {limits[name]:.1f}" for name in ("cache_new", "cache_over", "cache_read")
    )
    return (
        f"this machine, GB/s of processor time: {rates}, {files}\n"
        f"the disk until durable, GB/s elapsed: new {limits['disk_new']:.2f}, written over {limits['disk_over']:.2f}; "
        f"fsync of 4 KiB {limits['fsync_ms']:.2f} ms"
    )


def cgroup_line(row: dict[str, Any], limit_mb: int) -> str:
    readings = row["cgroups"]
    peak = max(each["peak_mb"] for each in readings.values())
    kills = sum(each["oom_kills"] for each in readings.values())
    hits = sum(each["limit_hits"] for each in readings.values())
    return (
        f"{label(row)}: each daemon in a cgroup of {limit_mb} MB without swap, its page cache and its worker included: "
        f"highest {peak:.0f} MB, OOM kills {kills}, limit met {hits} times (pages were taken back)"
    )


def plot(found: dict[str, Any]) -> str:
    """Seconds for each GB moved, over sizes: straight lines where cost is linear."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in measured(found):
        moved = 2 * row["participants"] * row["mb"] / 1000
        for name, key in (("round", "round_seconds"), ("bare gRPC", "bare_grpc_seconds")):
            lines.setdefault(f"{name}, {row['participants']}", []).append((row["mb"], row[key] / moved))
    return output.lines_plot(
        dict(lines), title="A round beside bare gRPC", x="size of the model, MB", y="seconds for each GB moved"
    )
