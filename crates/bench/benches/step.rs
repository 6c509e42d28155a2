//! What governs the cost of a step, forward and backward of one image. Beside each time: planned and measured peak of heap bytes, and
//! the share of all threads' time that is lost at the ends of loops and in parts that one thread does, median of a few runs.
//!
//! `cargo bench -p stream-grad-bench` takes a few minutes; `-- tile` runs those whose name holds "tile".

use std::time::Duration;

use anyhow::Context;
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use peak_alloc::PeakAlloc;
use stream_grad::ByteCount;
use stream_grad_bench::steps::{Row, Step, groups};
use stream_grad_kernels::LoopTimes;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Heap bytes that one run adds at its peak.
fn peak(step: &Step) -> anyhow::Result<ByteCount> {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    step.run()?;
    let peak = ALLOCATOR.peak_usage().saturating_sub(before);
    Ok(ByteCount::bytes(u64::try_from(peak)?))
}

/// Runs whose median is printed for what threads lose.
const RUNS: usize = 3;

/// Prints what threads lose in each sweep, and in the step.
fn print_idle(step: &Step) -> anyhow::Result<()> {
    let threads = step.threads();
    let runs: Vec<[LoopTimes; 2]> = (0..RUNS)
        .map(|_| step.loop_times())
        .collect::<anyhow::Result<_>>()?;
    let median = |share: &dyn Fn(&[LoopTimes; 2]) -> f64| {
        let mut shares: Vec<f64> = runs.iter().map(share).collect();
        shares.sort_by(f64::total_cmp);
        shares[RUNS / 2] * 100.0
    };
    for (sweep, name) in ["forward", "backward"].iter().enumerate() {
        println!(
            "  {name}, {threads} thread(s): {:.1}% idle in loops, {:.1}% in serial parts",
            median(&|times| times[sweep].idle_in_loops(threads)),
            median(&|times| times[sweep].idle_in_serial_parts(threads)),
        );
    }
    let whole = |times: &[LoopTimes; 2]| {
        let [forward, backward] = *times;
        let step = LoopTimes {
            elapsed: forward.elapsed + backward.elapsed,
            loops: forward.loops + backward.loops,
            tasks: forward.tasks + backward.tasks,
        };
        step.idle_in_loops(threads) + step.idle_in_serial_parts(threads)
    };
    println!("  step: {:.1}% idle", median(&whole));
    Ok(())
}

/// Prints the peaks, the compute ratio and idle times, then times the step.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, row: &Row) -> anyhow::Result<()> {
    let name = &row.name;
    let step = row.step().with_context(|| name.clone())?;
    let (plan, peak) = (step.plan(), peak(&step)?);
    println!(
        "{name}: peak {peak} of {} planned, compute ratio {}",
        plan.peak_bytes(),
        plan.cost().compute_ratio()
    );
    // Criterion's "elements" are floating-point operations.
    group.throughput(Throughput::Elements(u64::try_from(plan.cost().total())?));
    // Not of steps that are left out.
    let mut idle = None;
    group.bench_function(name, |bencher| {
        idle.get_or_insert_with(|| print_idle(&step));
        // The run above succeeded, and a run depends on nothing that has changed since.
        bencher.iter(|| step.run().is_ok());
    });
    idle.unwrap_or(Ok(()))
}

fn all(criterion: &mut Criterion) {
    for steps in groups() {
        let mut group = criterion.benchmark_group(steps.name);
        // A run takes long against the time for all: one run a sample.
        group.sampling_mode(SamplingMode::Flat);
        if let Err(error) = steps
            .rows
            .iter()
            .try_for_each(|row| measure(&mut group, row))
        {
            // Criterion has no way to fail; what was not measured must not pass for measured.
            eprintln!("error: {}: {error:#}", steps.name);
            std::process::exit(1);
        }
        group.finish();
    }
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .without_plots()
}

criterion_group! {
    name = benches;
    config = short();
    targets = all
}
criterion_main!(benches);
