//! What governs the cost of a step, forward and backward of one image: shapes of convolutions, edge of tiles, edge of the
//! image, depth, what is stored, threads. Beside each time: planned and measured peak of heap bytes.
//!
//! `cargo bench -p stream-grad-bench` takes a few minutes; `-- tile` runs those whose name holds "tile".

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Context;
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use peak_alloc::PeakAlloc;
use stream_grad::{ByteCount, Conv2d, Net, NetBuilder, Plan, PlanRequest};
use stream_grad_models::{ModelName, ResNetName, seeded};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Edge of the images and of the tiles where something else varies.
const IMAGE: u64 = 512;
const TILE: u64 = 256;

/// A plan with an image for it.
struct Step {
    plan: Plan,
    image: Tensor,
    cotangent: Tensor,
}

impl Step {
    fn new(net: &Net, height: u64, request: PlanRequest) -> anyhow::Result<Self> {
        let plan = net.plan(request)?;
        let (batch, channels, edge) = (1, net.input_channels(), usize::try_from(height)?);
        let image = Tensor::rand(-1.0_f32, 1.0, (batch, channels, edge, edge), &Device::Cpu)?;
        let cotangent = Tensor::ones(&plan.output_shapes()[0], DType::F32, &Device::Cpu)?;
        Ok(Self {
            plan,
            image,
            cotangent,
        })
    }

    fn run(&self) -> anyhow::Result<()> {
        let (features, residuals) = self.plan.forward(&self.image)?;
        let gradients = self
            .plan
            .vjp(residuals, std::slice::from_ref(&self.cotangent))?;
        drop((features, gradients));
        Ok(())
    }

    /// Heap bytes that one run adds at its peak.
    fn peak(&self) -> anyhow::Result<ByteCount> {
        ALLOCATOR.reset_peak_usage();
        let before = ALLOCATOR.current_usage();
        self.run()?;
        let peak = ALLOCATOR.peak_usage().saturating_sub(before);
        Ok(ByteCount::bytes(u64::try_from(peak)?))
    }
}

/// Prints the peaks and the compute ratio, then times the step.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    net: &Net,
    edge: u64,
    request: PlanRequest,
) -> anyhow::Result<()> {
    let step = Step::new(net, edge, request).with_context(|| name.to_owned())?;
    let (plan, peak) = (&step.plan, step.peak()?);
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

fn resnet(name: ModelName) -> anyhow::Result<Net> {
    Ok(name.build(seeded(&VarMap::new(), 0, DType::F32, &Device::Cpu))?)
}

/// A network of one convolution with "same" padding.
fn one_convolution(
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    groups: usize,
) -> anyhow::Result<Net> {
    let [from, to] = channels;
    let builder: VarBuilder<'_> = seeded(&VarMap::new(), 0, DType::F32, &Device::Cpu);
    let mut net = NetBuilder::new(from);
    let config = Conv2d::new(from, to, kernel)
        .stride(stride)
        .padding(kernel / 2)
        .groups(groups);
    let x = net.conv2d(net.input(), config, builder.pp("conv"))?;
    Ok(net.build(x)?)
}

fn shapes(group: &mut BenchmarkGroup<'_, WallTime>) -> anyhow::Result<()> {
    for (channels, kernel, stride, groups, edge) in [
        ([3, 64], 7, 2, 1, 512),
        ([64, 64], 3, 1, 1, 128),
        ([64, 128], 3, 2, 1, 128),
        ([64, 128], 1, 2, 1, 128),
        ([128, 128], 3, 1, 1, 64),
        ([256, 256], 3, 1, 1, 32),
        ([512, 512], 3, 1, 1, 16),
        ([64, 256], 1, 1, 1, 128),
        ([96, 96], 7, 1, 96, 128),
    ] {
        let net = one_convolution(channels, kernel, stride, groups)?;
        let [from, to] = channels;
        let name = format!("{from}-{to} k{kernel} s{stride} g{groups}, {edge}");
        measure(group, &name, &net, edge, PlanRequest::new(edge, edge))?;
    }
    Ok(())
}

fn tiles(group: &mut BenchmarkGroup<'_, WallTime>) -> anyhow::Result<()> {
    let net = resnet(ModelName::ResNet(ResNetName::ResNet18))?;
    for tile in [64, 128, 256, 512] {
        let request = nothing_stored(IMAGE, tile);
        measure(group, &format!("tile {tile}"), &net, IMAGE, request)?;
    }
    Ok(())
}

fn images(group: &mut BenchmarkGroup<'_, WallTime>) -> anyhow::Result<()> {
    let net = resnet(ModelName::ResNet(ResNetName::ResNet18))?;
    for edge in [256, 512, 1024] {
        measure(
            group,
            &format!("image {edge}"),
            &net,
            edge,
            nothing_stored(edge, TILE),
        )?;
    }
    Ok(())
}

fn depths(group: &mut BenchmarkGroup<'_, WallTime>) -> anyhow::Result<()> {
    for name in [
        ModelName::ResNet(ResNetName::ResNet18),
        ModelName::ResNet(ResNetName::ResNet34),
        ModelName::ResNet(ResNetName::ResNet50),
    ] {
        let net = resnet(name)?;
        measure(
            group,
            &name.to_string(),
            &net,
            IMAGE,
            nothing_stored(IMAGE, TILE),
        )?;
    }
    Ok(())
}

/// From the last stage to the first: the bytes of a stage double, its arithmetic stays.
fn stored_sets(group: &mut BenchmarkGroup<'_, WallTime>) -> anyhow::Result<()> {
    let net = resnet(ModelName::ResNet(ResNetName::ResNet18))?;
    let stages = ["layer4", "layer3", "layer2", "layer1", ""];
    for count in 0..=stages.len() {
        let stored = net.operation_names().filter(|name| {
            stages
                .iter()
                .take(count)
                .any(|stage| name.starts_with(stage))
        });
        let request = PlanRequest::new(IMAGE, IMAGE).tile(TILE).stored(stored);
        let name = match stages.get(..count) {
            Some([]) | None => "stored nothing".to_owned(),
            Some([.., "layer4"]) => "stored layer4".to_owned(),
            Some([.., ""]) => "stored everything".to_owned(),
            Some([.., stage]) => format!("stored {stage} to layer4"),
        };
        measure(group, &name, &net, IMAGE, request)?;
    }
    Ok(())
}

fn threads(group: &mut BenchmarkGroup<'_, WallTime>) -> anyhow::Result<()> {
    let net = resnet(ModelName::ResNet(ResNetName::ResNet18))?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut counts = vec![1];
    while let Some(next) = counts
        .last()
        .map(|count| count * 2)
        .filter(|&next| next <= cores)
    {
        counts.push(next);
    }
    for count in counts {
        let request = nothing_stored(IMAGE, TILE).threads(count);
        measure(group, &format!("threads {count}"), &net, IMAGE, request)?;
    }
    Ok(())
}

fn nothing_stored(edge: u64, tile: u64) -> PlanRequest {
    PlanRequest::new(edge, edge)
        .tile(tile)
        .stored(Vec::<String>::new())
}

type Group = fn(&mut BenchmarkGroup<'_, WallTime>) -> anyhow::Result<()>;

fn all(criterion: &mut Criterion) {
    let groups: [(&str, Group); 6] = [
        ("shape of a convolution", shapes),
        ("tile edge, ResNet-18", tiles),
        ("image edge, ResNet-18", images),
        ("depth", depths),
        ("stored, ResNet-18", stored_sets),
        ("threads, ResNet-18", threads),
    ];
    for (name, run) in groups {
        let mut group = criterion.benchmark_group(name);
        // A run takes long against the time for all: one run a sample.
        group.sampling_mode(SamplingMode::Flat);
        if let Err(error) = run(&mut group) {
            // Criterion has no way to fail; what was not measured must not pass for measured.
            eprintln!("error: {name}: {error:#}");
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
