//! The notebook's classifier, its first two stages streamed or conventional.

#![expect(
    clippy::result_large_err,
    reason = "a model has the error of its trait"
)]

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::init::{DEFAULT_KAIMING_NORMAL, ZERO};
use candle_nn::{Init, VarBuilder, VarMap};
use stream_grad::tiling::Recipe;
use stream_grad::{
    Plan, PlanRequest, Rect, Residuals, StreamError, StridedMut, TileMut, TileSource,
};
use stream_grad_models::{ImagenetteStem, ImagenetteTail, imagenette, seeded};
use stream_grad_train::gradients::{Gradients, NamedVariables};
use stream_grad_train::loss::TargetScale;
use stream_grad_train::model::{LossFunction, Model, SlideGradients, assign};
use stream_grad_train::{Result, TrainError};

/// Outputs of the classifier.
pub(super) const CLASSES: usize = 10;

/// How the first two stages are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By this project's engine, tile by tile.
    Streamed {
        /// Edge of the tiles in pixels.
        tile: u64,
    },
    /// In one piece by candle, with its autograd.
    Conventional,
}

impl Way {
    /// A name for people and for folders.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Streamed { .. } => "streamed",
            Self::Conventional => "conventional",
        }
    }
}

/// The classifier for square pictures of one size; its second part is conventional either way.
pub(super) struct Classifier {
    variables: BTreeMap<String, Var>,
    front: Front,
    tail: ImagenetteTail,
}

enum Front {
    Streamed(Box<Plan>),
    Conventional(ImagenetteStem),
}

/// What goes back through the first part, from its features on.
enum Back<'a> {
    Streamed(&'a Plan, Box<Residuals<'a>>),
    Conventional,
}

impl Classifier {
    /// A classifier of pictures of `size x size` pixels, with the notebook's initial weights drawn from `seed`.
    pub(super) fn new(way: Way, size: u64, seed: u64) -> Result<Self> {
        let variables = VarMap::new();
        let builder = seeded(&variables, seed, DType::F32, &Device::Cpu);
        let variables = initial(&builder)?;
        let front = match way {
            Way::Streamed { tile } => {
                let net = imagenette(builder.clone())?;
                let plan = net.plan(PlanRequest::new(size, size).tile(tile))?;
                Front::Streamed(Box::new(plan))
            }
            Way::Conventional => Front::Conventional(ImagenetteStem::new(builder.clone())?),
        };
        Ok(Self {
            variables,
            front,
            tail: ImagenetteTail::new(builder)?,
        })
    }

    /// Logits `[1, 10]`, and the way back.
    fn forward<'a>(&'a self, image: &'a dyn TileSource) -> Result<(Tensor, Tensor, Back<'a>)> {
        let (features, back) = match &self.front {
            Front::Streamed(plan) => {
                let (features, residuals) = plan.forward(image)?;
                (features, Back::Streamed(plan, Box::new(residuals)))
            }
            Front::Conventional(stem) => (stem.forward(&whole(image)?)?, Back::Conventional),
        };
        let logits = self.tail.forward(&features)?;
        Ok((logits, features, back))
    }
}

impl Back<'_> {
    fn gradients(self, features: &Tensor, loss: &Tensor) -> Result<GradStore> {
        Ok(match self {
            Self::Streamed(plan, residuals) => plan.backward(*residuals, features, loss)?,
            Self::Conventional => loss.backward()?,
        })
    }
}

/// Makes all parameters, with the notebook's initial values: PyTorch's own where it streams, Kaiming's and biases of zero in
/// the rest.
fn initial(builder: &VarBuilder<'_>) -> Result<BTreeMap<String, Var>> {
    let layers: [(usize, &[usize]); 6] = [
        (0, &[16, 3, 3, 3]),
        (3, &[32, 16, 3, 3]),
        (6, &[64, 32, 3, 3]),
        (9, &[128, 64, 3, 3]),
        (12, &[256, 128, 3, 3]),
        (16, &[CLASSES, 256]),
    ];
    let mut variables = BTreeMap::new();
    for (place, (index, shape)) in layers.into_iter().enumerate() {
        let inputs: usize = shape[1..].iter().product();
        let bound = 1.0 / (inputs as f64).sqrt();
        let uniform = Init::Uniform {
            lo: -bound,
            up: bound,
        };
        let (weight, bias) = match place {
            0 | 1 => (uniform, uniform),
            _ => (DEFAULT_KAIMING_NORMAL, ZERO),
        };
        let layer = builder.pp(index);
        for (name, shape, init) in [("weight", shape, weight), ("bias", &shape[..1], bias)] {
            let tensor = layer.get_with_hints(shape, name, init)?;
            let variable = Var::from_tensor(&tensor)?;
            variables.insert(format!("{index}.{name}"), variable);
        }
    }
    Ok(variables)
}

/// All of an image as `[1, 3, H, W]`.
fn whole(image: &dyn TileSource) -> Result<Tensor> {
    let (height, width) = image.extent();
    let region = Rect::whole(height, width);
    let (rows, columns, channels) = (region.height(), region.width(), image.channels());
    let mut values = vec![0_f32; rows * columns * channels];
    let length = columns * channels;
    if let Some(tile) = StridedMut::new(&mut values, rows, length, length) {
        let read = image.read(0, region, TileMut::F32(tile));
        read.map_err(|source| StreamError::Source {
            image: 0,
            region,
            source,
        })?;
    }
    let image = Tensor::from_vec(values, (1, rows, columns, channels), &Device::Cpu)?;
    Ok(image.permute((0, 3, 1, 2))?.contiguous()?)
}

fn numbers(logits: &Tensor) -> Result<Vec<f64>> {
    Ok(logits.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

impl Model for Classifier {
    fn variables(&self) -> NamedVariables {
        let variables = self.variables.iter();
        variables
            .map(|(name, variable)| (name.clone(), variable.clone()))
            .collect()
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let variables = self.variables.iter();
        variables
            .map(|(name, variable)| (name.clone(), variable.as_detached_tensor()))
            .collect()
    }

    fn load_tensors(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        assign(&self.variables, tensors)
    }

    /// The tile is a setting.
    fn recipes(&self) -> Vec<Recipe> {
        Vec::new()
    }

    fn load_recipes(&self, _: Vec<Recipe>) {}

    fn set_target_scale(&self, _: TargetScale) -> Result<()> {
        Err(TrainError::Setting {
            setting: "data.task".to_owned(),
            expected: "classification".to_owned(),
            found: "regression".to_owned(),
        })
    }

    fn predict(&self, image: &dyn TileSource) -> Result<Vec<f64>> {
        let (logits, ..) = self.forward(image)?;
        numbers(&logits)
    }

    fn pooled(&self, image: &dyn TileSource) -> Result<Tensor> {
        let (logits, ..) = self.forward(image)?;
        Ok(logits.detach())
    }

    fn gradients(&self, image: &dyn TileSource, loss: LossFunction<'_>) -> Result<SlideGradients> {
        let (logits, features, back) = self.forward(image)?;
        let loss = loss(&logits)?;
        let value = loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let gradients = if value.is_finite() {
            let store = back.gradients(&features, &loss)?;
            Gradients::from_store(&self.variables(), &store)
        } else {
            Gradients::default()
        };
        Ok(SlideGradients {
            loss: value,
            logits: numbers(&logits)?,
            gradients,
            pooled: logits.detach(),
        })
    }

    /// There are none.
    fn needs_statistics(&self) -> Result<bool> {
        Ok(false)
    }

    fn update_statistics(&self, _: &[Tensor]) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use stream_grad_models::generator;

    use super::*;

    #[expect(clippy::cast_possible_truncation, reason = "numbers of f32 are wanted")]
    fn image(size: usize) -> Tensor {
        let values = generator::uniform("classifier").map(|value| value as f32);
        let values: Vec<f32> = values.take(3 * size * size).collect();
        Tensor::from_vec(values, (1, 3, size, size), &Device::Cpu).unwrap()
    }

    #[test]
    fn the_classifier_is_the_notebooks() {
        for way in [Way::Streamed { tile: 32 }, Way::Conventional] {
            let classifier = Classifier::new(way, 320, 1).unwrap();
            let counts = classifier
                .variables
                .values()
                .map(|variable| variable.elem_count());
            assert_eq!(counts.sum::<usize>(), 395_178);
            let weights = classifier.tensors();
            let zero = |name: &str| {
                let bias = weights[name].to_vec1::<f32>().unwrap();
                bias.iter().all(|value| *value == 0.0)
            };
            assert!(!zero("0.bias") && !zero("3.bias"));
            assert!(
                ["6.bias", "9.bias", "12.bias", "16.bias"]
                    .into_iter()
                    .all(zero)
            );
        }
    }

    /// Both ways have one seed's weights, and give the same losses and gradients.
    #[test]
    fn streamed_and_conventional_are_one_classifier() {
        let ways = [Way::Streamed { tile: 32 }, Way::Conventional];
        let [streamed, conventional] = ways.map(|way| Classifier::new(way, 96, 7).unwrap());
        let image = image(96);
        let loss = |logits: &Tensor| {
            let target = Tensor::new(&[3_u32], &Device::Cpu)?;
            Ok(candle_nn::loss::cross_entropy(logits, &target)?)
        };
        let [a, b] = [&streamed, &conventional].map(|c| c.gradients(&image, &loss).unwrap());
        assert!(
            (a.loss - b.loss).abs() < 1e-5 * b.loss,
            "{} {}",
            a.loss,
            b.loss
        );
        for (name, _) in streamed.variables() {
            let [a, b] = [&a, &b].map(|found| found.gradients.get(&name).unwrap());
            let norm = |tensor: &Tensor| {
                let square = tensor.sqr().unwrap().sum_all().unwrap();
                square.to_scalar::<f32>().unwrap().sqrt()
            };
            let difference = norm(&(a - b).unwrap());
            assert!(
                difference < 1e-4 * norm(b),
                "{name}: {difference} of {}",
                norm(b)
            );
            assert!(norm(b) > 0.0, "{name}");
        }
        let [a, b] = [&streamed, &conventional].map(|c| c.predict(&image).unwrap());
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
}
