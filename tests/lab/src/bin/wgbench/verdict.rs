//! The tables, and what they say about the gates.

use crate::crowd::{self, Crowd};
use crate::figures::{Figures, Metric, spread};
use crate::rounds::Lanes;

/// A demand on the paired ratio of our figure to another's.
struct Gate {
    what: &'static str,
    ours: &'static str,
    against: Against,
    metric: Metric,
    /// To be reached, and to be aimed at.
    gate: f64,
    aim: f64,
}

enum Against {
    Row(&'static str),
    /// The best of all other WireGuards, by median.
    Best,
    /// Nobody: the figure itself counts.
    Nobody,
}

use Against::{Best, Nobody, Row};

#[rustfmt::skip]
const GATES: &[Gate] = &[
    Gate { what: "one TCP flow : boringtun-cli, 1 thread", ours: "ours", against: Row("boringtun-1"), metric: Metric::Tcp1, gate: 3.0, aim: 4.0 },
    Gate { what: "one TCP flow : gotatun-cli", ours: "ours", against: Row("gotatun"), metric: Metric::Tcp1, gate: 3.5, aim: 4.5 },
    Gate { what: "one TCP flow : newest wireguard-go", ours: "ours", against: Row("newest"), metric: Metric::Tcp1, gate: 1.6, aim: 2.0 },
    Gate { what: "one TCP flow, pinned : newest wireguard-go, pinned", ours: "ours-pinned", against: Row("newest-pinned"), metric: Metric::Tcp1, gate: 1.1, aim: 1.3 },
    Gate { what: "one TCP flow : bare veth", ours: "ours", against: Row("cable"), metric: Metric::Tcp1, gate: 0.30, aim: 0.40 },
    Gate { what: "four TCP flows : boringtun-cli, 1 thread", ours: "ours", against: Row("boringtun-1"), metric: Metric::Tcp4, gate: 3.0, aim: 4.0 },
    Gate { what: "four TCP flows : gotatun-cli", ours: "ours", against: Row("gotatun"), metric: Metric::Tcp4, gate: 3.5, aim: 4.5 },
    Gate { what: "four TCP flows : newest wireguard-go", ours: "ours", against: Row("newest"), metric: Metric::Tcp4, gate: 1.6, aim: 2.0 },
    Gate { what: "four TCP flows : bare veth", ours: "ours", against: Row("cable"), metric: Metric::Tcp4, gate: 0.30, aim: 0.40 },
    Gate { what: "64-byte packets : the best", ours: "ours", against: Best, metric: Metric::Udp64, gate: 1.4, aim: 2.0 },
    Gate { what: "UDP packets of 1 400 bytes : the best", ours: "ours", against: Best, metric: Metric::Udp1400, gate: 1.3, aim: 1.5 },
    Gate { what: "processor per GB, one flow : the best (less is better)", ours: "ours", against: Best, metric: Metric::Cpu1, gate: 0.6, aim: 0.46 },
    Gate { what: "processor per GB, four flows : the best (less is better)", ours: "ours", against: Best, metric: Metric::Cpu4, gate: 0.6, aim: 0.46 },
    Gate { what: "ping under four flows : the best (less is better)", ours: "ours", against: Best, metric: Metric::Ping, gate: 1.0, aim: 1.0 },
    Gate { what: "ping under four flows, ms (less is better)", ours: "ours", against: Nobody, metric: Metric::Ping, gate: 1.0, aim: 1.0 },
    Gate { what: "retransmissions on a clean link", ours: "ours", against: Nobody, metric: Metric::Retransmits, gate: 0.0, aim: 0.0 },
    Gate { what: "no TUN offload, one TCP flow : boringtun-cli, 1 thread", ours: "ours-plain", against: Row("boringtun-1"), metric: Metric::Tcp1, gate: 1.5, aim: 1.5 },
];

fn less_is_better(metric: Metric) -> bool {
    !matches!(metric, Metric::Tcp1 | Metric::Tcp4 | Metric::Udp1400 | Metric::UdpCut | Metric::Udp64)
}

fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One block per metric: every row's median and range, and our figure by theirs, paired.
pub fn print_figures(figures: &Figures) {
    for metric in Metric::ALL {
        let rows: Vec<_> = figures.rows().filter(|(id, _)| !figures.values(id, metric).is_empty()).collect();
        if rows.is_empty() {
            continue;
        }
        println!("\n{}", metric.title());
        println!("  {:<34} {:>9} {:>9} {:>9}   {:>22}", "", "median", "least", "most", "thinlane / this (range)");
        for (id, title) in rows {
            let Some(seen) = spread(&figures.values(id, metric)) else { continue };
            let ours = if id.ends_with("-pinned") { "ours-pinned" } else { "ours" };
            let ratio = match spread(&figures.ratios(ours, id, metric)) {
                Some(ratio) if id != ours => {
                    format!("{} ({} - {})", short(ratio.median), short(ratio.least), short(ratio.most))
                }
                _ => String::new(),
            };
            let [median, least, most] = [seen.median, seen.least, seen.most].map(short);
            println!("  {title:<34} {median:>9} {least:>9} {most:>9}   {ratio:>22}");
        }
    }
}

/// The other WireGuard that does best.
fn best(figures: &Figures, foreign: &[String], metric: Metric) -> Option<String> {
    let medians = foreign.iter().filter_map(|id| Some((id, figures.median(id, metric)?)));
    let order = |one: &(&String, f64), other: &(&String, f64)| one.1.total_cmp(&other.1);
    let found = if less_is_better(metric) { medians.min_by(order) } else { medians.max_by(order) };
    found.map(|(id, _)| id.clone())
}

/// The gates, each with its verdict; says whether all that could be judged were reached.
pub fn print_gates(figures: &Figures, foreign: &[String]) -> bool {
    println!("\ngates (paired medians)");
    let mut all = true;
    for gate in GATES {
        let (values, beside) = match gate.against {
            Row(id) => (figures.ratios(gate.ours, id, gate.metric), String::new()),
            Nobody => (figures.values(gate.ours, gate.metric), String::new()),
            Best => match best(figures, foreign, gate.metric) {
                Some(id) => (figures.ratios(gate.ours, &id, gate.metric), format!(" ({id})")),
                None => (Vec::new(), String::new()),
            },
        };
        let Some(seen) = spread(&values) else {
            println!("  {:<60} {:>8}   not measured", gate.what, "-");
            continue;
        };
        let meets = |bound: f64| if less_is_better(gate.metric) { seen.median <= bound } else { seen.median >= bound };
        let verdict = match (meets(gate.gate), meets(gate.aim)) {
            (_, true) => "aim reached",
            (true, false) => "gate reached",
            (false, _) => "MISSED",
        };
        all &= meets(gate.gate);
        let what = format!("{}{beside}", gate.what);
        println!("  {what:<60} {:>8}   {verdict} (gate {}, aim {})", short(seen.median), gate.gate, gate.aim);
    }
    all
}

pub fn print_lanes(lanes: &[anyhow::Result<Lanes>]) {
    println!("\ncost of many lanes (one device at each end)");
    println!(
        "  {:>6} {:>12} {:>14} {:>16} {:>18}",
        "lanes", "up, after s", "idle, MB", "one flow, Mbit/s", "wake-ups a minute"
    );
    for seen in lanes {
        match seen {
            Ok(seen) => println!(
                "  {:>6} {:>12} {:>14} {:>16} {:>18}",
                seen.lanes,
                format!("{}, {}", seen.up, short(seen.seconds)),
                short(seen.idle_mb),
                short(seen.rate),
                short(seen.wakes)
            ),
            Err(error) => println!("  not measured: {error:#}"),
        }
    }
    if let [Ok(first), .., Ok(last)] = lanes {
        let each = (last.idle_mb - first.idle_mb) * 1024.0 / (last.lanes - first.lanes) as f64;
        let verdict = if each <= 24.0 { "gate reached" } else { "MISSED" };
        println!("  an idle lane costs {} KB   {verdict} (gate 24)", short(each));
    }
}

/// Memory with every lane at work, against its gate; says whether it was reached.
pub fn print_crowd(seen: &anyhow::Result<Crowd>) -> bool {
    println!("\nmemory with {} lanes at work (four TCP flows through one, datagrams through all)", crowd::LANES);
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => {
            println!("  not measured: {error:#}");
            return true;
        }
    };
    let [gate, aim] = crowd::GATE;
    let verdict = match seen.loaded_mb {
        mb if mb <= aim => "aim reached",
        mb if mb <= gate => "gate reached",
        _ => "MISSED",
    };
    println!(
        "  resident, the larger end: {} MB idle, {} MB under load   {verdict} (gate {gate}, aim {aim})",
        short(seen.idle_mb),
        short(seen.loaded_mb)
    );
    println!("  meanwhile {} Mbit/s of TCP and {} datagrams arrived", short(seen.rate), seen.datagrams);
    seen.loaded_mb <= gate
}
