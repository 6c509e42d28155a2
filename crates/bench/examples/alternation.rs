//! Times steps of two builds in alternation: a machine's speed drifts by more than what a change costs, and neighbours in time share it.
//!
//! `alternation serve` runs steps by the names that it reads and prints their seconds. `alternation BEFORE AFTER [rounds]` starts
//! three such programs, BEFORE twice, and prints for each step the median of the paired ratios of AFTER to BEFORE with a 95%
//! interval, and the same of BEFORE to itself: what two builds that are one differ by here.
//!
//! `cargo build --release -p stream-grad-bench --example alternation` in either checkout makes the programs. 20 rounds, the default,
//! take about ten minutes on two cores.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use stream_grad_bench::steps::{Row, Step, groups};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve(),
        [before, after] => compare(before, after, 20),
        [before, after, rounds] => compare(before, after, rounds.parse().context("rounds")?),
        _ => bail!("usage: alternation serve | alternation BEFORE AFTER [rounds]"),
    }
}

/// The name of each step with its group's.
fn rows() -> Vec<(String, Row)> {
    let groups = groups().into_iter();
    let rows = groups.flat_map(|group| group.rows.into_iter().map(move |row| (group.name, row)));
    rows.map(|(group, row)| (format!("{group}: {}", row.name), row))
        .collect()
}

/// Reads names of steps, and for each prints the seconds of one run, after one that is not counted if it is not the step before.
fn serve() -> anyhow::Result<()> {
    let rows = rows();
    let mut ready: Option<(String, Step)> = None;
    for line in std::io::stdin().lines() {
        let name = line?;
        let step = match ready.take() {
            Some((is, step)) if is == name => step,
            before => {
                drop(before);
                let row = rows.iter().find(|(row, _)| *row == name);
                let step = row.with_context(|| format!("no step `{name}`"))?.1.step()?;
                step.run()?;
                step
            }
        };
        // Steps of milliseconds are run for a tenth of a second.
        let start = Instant::now();
        let mut runs = 0_u32;
        while runs == 0 || start.elapsed().as_secs_f64() < 0.1 {
            step.run()?;
            runs += 1;
        }
        println!("{}", start.elapsed().as_secs_f64() / f64::from(runs));
        std::io::stdout().flush()?;
        ready = Some((name, step));
    }
    Ok(())
}

/// A build that runs steps.
struct Server {
    child: Child,
    asked: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Server {
    fn start(program: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        Ok(Self {
            asked: child.stdin.take().context("no standard input")?,
            told: BufReader::new(child.stdout.take().context("no standard output")?),
            child,
        })
    }

    fn seconds(&mut self, name: &str) -> anyhow::Result<f64> {
        writeln!(self.asked, "{name}")?;
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        let seconds = line.trim().parse();
        seconds.with_context(|| format!("`{name}` gave `{}`", line.trim()))
    }

    fn stop(mut self) -> anyhow::Result<()> {
        drop(self.asked);
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "a program ended with {status}");
        Ok(())
    }
}

fn compare(before: &str, after: &str, rounds: usize) -> anyhow::Result<()> {
    let servers = [before, before, after].into_iter().map(Server::start);
    let mut servers = servers.collect::<anyhow::Result<Vec<_>>>()?;
    println!(
        "{:<50}{:>10}{:>28}{:>28}",
        "step", "seconds", "after / before", "before / before"
    );
    let mut logarithms = [Vec::new(), Vec::new()];
    for (name, _) in rows() {
        let mut ratios = [Vec::new(), Vec::new()];
        let mut seconds = Vec::new();
        for round in 0..rounds {
            // Who comes first changes, so that nobody always follows the same one.
            let mut found = [0.0; 3];
            for place in 0..3 {
                let server = (place + round) % 3;
                found[server] = servers[server].seconds(&name)?;
            }
            let [first, second, new] = found;
            ratios[0].push(new / first);
            ratios[1].push(second / first);
            seconds.push(first);
        }
        let cells: Vec<String> = ratios
            .iter_mut()
            .zip(&mut logarithms)
            .map(|(ratios, logarithms)| {
                let [low, middle, high] = interval(ratios);
                logarithms.push(middle.ln());
                format!("{middle:.3} ({low:.3} to {high:.3})")
            })
            .collect();
        let [_, seconds, _] = interval(&mut seconds);
        println!("{name:<50}{seconds:>10.3}{:>28}{:>28}", cells[0], cells[1]);
    }
    let [new, same] = logarithms.map(|all| {
        let count = all.len().max(1) as f64;
        (all.iter().sum::<f64>() / count).exp()
    });
    println!("{:<50}{:>10}{new:>28.3}{same:>28.3}", "geometric mean", "");
    servers.into_iter().try_for_each(Server::stop)
}

/// The median, and the order statistics between which it lies in 95 of 100 samples (by the binomial distribution's normal
/// approximation).
fn interval(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let reach = 0.98 * count.sqrt();
    let at = |place: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place among a few values"
        )]
        let place = place.max(0.0) as usize;
        values
            .get(place.min(values.len().saturating_sub(1)))
            .copied()
            .unwrap_or(f64::NAN)
    };
    let half = (count - 1.0) / 2.0;
    [
        at((half - reach).floor()),
        at(half.round()),
        at((half + reach).ceil()),
    ]
}
