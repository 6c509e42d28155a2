//! What governs the cost of a step, forward and backward of one image. Beside each time: planned and measured peak of heap bytes.
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

/// Prints the peaks and the compute ratio, then times the step.
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
    group.bench_function(name, |bencher| {
        // The run above succeeded, and a run depends on nothing that has changed since.
        bencher.iter(|| step.run().is_ok());
    });
    Ok(())
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
