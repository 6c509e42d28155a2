//! Whole steps, forward and backward of one image, over what governs their cost: shapes of convolutions, edge of tiles, edge of the
//! image, depth, what is stored and in which type, threads.

use std::fmt;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use stream_grad::{Conv2d, Net, NetBuilder, Plan, PlanRequest, cores};
use stream_grad_kernels::{LoopClock, LoopTimes};
use stream_grad_models::{ModelName, ResNetName, seeded};

/// Edge of the images and of the tiles where something else varies.
const IMAGE: u64 = 512;
const TILE: u64 = 256;

/// What is varied, and the steps for it.
#[derive(Debug)]
pub struct Group {
    /// What is varied.
    pub name: &'static str,
    /// The steps, by their names.
    pub rows: Vec<Row>,
}

/// A step that can be made ready.
pub struct Row {
    /// Unique within its group.
    pub name: String,
    net: Box<dyn Fn() -> anyhow::Result<Net>>,
    edge: u64,
    request: Box<dyn Fn(&Net) -> PlanRequest>,
    /// One for each core without.
    threads: Option<usize>,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("name", &self.name)
            .field("edge", &self.edge)
            .finish_non_exhaustive()
    }
}

impl Row {
    fn new(
        name: impl Into<String>,
        net: impl Fn() -> anyhow::Result<Net> + 'static,
        edge: u64,
        request: impl Fn(&Net) -> PlanRequest + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            net: Box::new(net),
            edge,
            request: Box::new(request),
            threads: None,
        }
    }

    /// Plans the step and makes an image for it.
    ///
    /// # Errors
    /// What building and planning refuse.
    pub fn step(&self) -> anyhow::Result<Step> {
        let net = (self.net)()?;
        let mut request = (self.request)(&net);
        if let Some(threads) = self.threads {
            request = request.threads(threads);
        }
        let plan = net.plan(request)?;
        let edge = usize::try_from(self.edge)?;
        let shape = (1, net.input_channels(), edge, edge);
        let image = Tensor::rand(-1.0_f32, 1.0, shape, &Device::Cpu)?;
        let cotangent = Tensor::ones(&plan.output_shapes()[0], DType::F32, &Device::Cpu)?;
        Ok(Step {
            plan,
            threads: self.threads.unwrap_or_else(cores),
            image,
            cotangent,
        })
    }
}

/// A plan with an image for it.
#[derive(Debug)]
pub struct Step {
    plan: Plan,
    threads: usize,
    image: Tensor,
    cotangent: Tensor,
}

impl Step {
    /// How the image is streamed.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Runs forward and backward once.
    ///
    /// # Errors
    /// What the sweeps refuse.
    pub fn run(&self) -> anyhow::Result<()> {
        let (features, residuals) = self.plan.forward(&self.image)?;
        let cotangents = std::slice::from_ref(&self.cotangent);
        let gradients = self.plan.vjp(residuals, cotangents)?;
        drop((features, gradients));
        Ok(())
    }

    /// Runs forward and backward once, and tells what threads did in each.
    ///
    /// # Errors
    /// What the sweeps refuse.
    pub fn loop_times(&self) -> anyhow::Result<[LoopTimes; 2]> {
        let clock = LoopClock::start();
        let (features, residuals) = self.plan.forward(&self.image)?;
        let forward = clock.read();
        let clock = LoopClock::start();
        let cotangents = std::slice::from_ref(&self.cotangent);
        let gradients = self.plan.vjp(residuals, cotangents)?;
        let backward = clock.read();
        drop((features, gradients));
        Ok([forward, backward])
    }

    /// Threads that it runs on.
    #[must_use]
    pub const fn threads(&self) -> usize {
        self.threads
    }
}

/// All steps.
#[must_use]
pub fn groups() -> [Group; 8] {
    [
        ("shape of a convolution", shapes(DType::F32)),
        ("shape of a convolution, bf16", shapes(DType::BF16)),
        ("tile edge, ResNet-18", tiles()),
        ("image edge, ResNet-18", images()),
        ("depth", depths(DType::F32)),
        ("depth, bf16", depths(DType::BF16)),
        ("stored, ResNet-18", stored()),
        ("threads, ResNet-18", threads()),
    ]
    .map(|(name, rows)| Group { name, rows })
}

fn resnet(name: ResNetName) -> anyhow::Result<Net> {
    let builder = seeded(&VarMap::new(), 0, DType::F32, &Device::Cpu);
    Ok(ModelName::ResNet(name).build(builder)?)
}

fn resnet18() -> anyhow::Result<Net> {
    resnet(ResNetName::ResNet18)
}

/// A network of one convolution with "same" padding.
fn one_convolution(
    [from, to]: [usize; 2],
    kernel: usize,
    stride: usize,
    groups: usize,
) -> anyhow::Result<Net> {
    let builder: VarBuilder<'_> = seeded(&VarMap::new(), 0, DType::F32, &Device::Cpu);
    let mut net = NetBuilder::new(from);
    let config = Conv2d::new(from, to, kernel)
        .stride(stride)
        .padding(kernel / 2)
        .groups(groups);
    let x = net.conv2d(net.input(), config, builder.pp("conv"))?;
    Ok(net.build(x)?)
}

fn shapes(dtype: DType) -> Vec<Row> {
    let shapes = [
        ([3, 64], 7, 2, 1, 512),
        ([64, 64], 3, 1, 1, 128),
        ([64, 128], 3, 2, 1, 128),
        ([64, 128], 1, 2, 1, 128),
        ([128, 128], 3, 1, 1, 64),
        ([256, 256], 3, 1, 1, 32),
        ([512, 512], 3, 1, 1, 16),
        ([64, 256], 1, 1, 1, 128),
        ([96, 96], 7, 1, 96, 128),
    ];
    let row = |(channels, kernel, stride, groups, edge)| {
        let [from, to] = channels;
        Row::new(
            format!("{from}-{to} k{kernel} s{stride} g{groups}, {edge}"),
            move || one_convolution(channels, kernel, stride, groups),
            edge,
            move |_| PlanRequest::new(edge, edge).dtype(dtype),
        )
    };
    shapes.into_iter().map(row).collect()
}

fn tiles() -> Vec<Row> {
    let row = |tile| {
        let request = move |_: &Net| nothing_stored(IMAGE, tile);
        Row::new(format!("tile {tile}"), resnet18, IMAGE, request)
    };
    [64, 128, 256, 512].into_iter().map(row).collect()
}

fn images() -> Vec<Row> {
    let row = |edge| {
        let request = move |_: &Net| nothing_stored(edge, TILE);
        Row::new(format!("image {edge}"), resnet18, edge, request)
    };
    [256, 512, 1024].into_iter().map(row).collect()
}

fn depths(dtype: DType) -> Vec<Row> {
    let names = [
        ResNetName::ResNet18,
        ResNetName::ResNet34,
        ResNetName::ResNet50,
    ];
    let row = |name| {
        let request = move |_: &Net| nothing_stored(IMAGE, TILE).dtype(dtype);
        let title = ModelName::ResNet(name).to_string();
        Row::new(title, move || resnet(name), IMAGE, request)
    };
    names.into_iter().map(row).collect()
}

/// From the last stage to the first: the bytes of a stage double, its arithmetic stays.
fn stored() -> Vec<Row> {
    const STAGES: [&str; 5] = ["layer4", "layer3", "layer2", "layer1", ""];
    let row = |count: usize| {
        let stages = &STAGES[..count];
        let name = match stages {
            [] => "stored nothing".to_owned(),
            ["layer4"] => "stored layer4".to_owned(),
            [.., ""] => "stored everything".to_owned(),
            [.., stage] => format!("stored {stage} to layer4"),
        };
        let request = move |net: &Net| {
            let lies_in_them = |name: &&str| stages.iter().any(|stage| name.starts_with(stage));
            let stored = net.operation_names().filter(lies_in_them);
            PlanRequest::new(IMAGE, IMAGE).tile(TILE).stored(stored)
        };
        Row::new(name, resnet18, IMAGE, request)
    };
    (0..=STAGES.len()).map(row).collect()
}

fn threads() -> Vec<Row> {
    let counts = std::iter::successors(Some(1), |count| Some(count * 2));
    let row = |count| {
        let request = |_: &Net| nothing_stored(IMAGE, TILE);
        Row {
            threads: Some(count),
            ..Row::new(format!("threads {count}"), resnet18, IMAGE, request)
        }
    };
    counts
        .take_while(|&count| count <= cores())
        .map(row)
        .collect()
}

fn nothing_stored(edge: u64, tile: u64) -> PlanRequest {
    PlanRequest::new(edge, edge)
        .tile(tile)
        .stored(Vec::<String>::new())
}
