//! What is trained: a streamed network and its head, or a streamed network of pixels.

mod built;
mod parts;
mod segmentation;
mod settings;
mod streamed;
mod task_model;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use stream_grad::tiling::{ByteCount, Recipe, Reuse};
use stream_grad::{CostModel, Maps, Net, Plan, PlanRequest, TileSource};
use stream_grad_models::{Head, ModelName};

pub use built::BuiltModel;
pub use segmentation::{PixelGradients, SegmentationModel};
pub use settings::{ModelSettings, Pooling, Precision};
pub use task_model::{PixelModel, TaskModel};

use crate::data::Task;
use crate::error::{Result, TrainError};
use crate::gradients::{Gradients, NamedVariables};
use crate::loss::TargetScale;
use crate::optimizer::ParameterGroup;
use streamed::{StreamedNet, Top};

/// A loss of logits `[1, outputs]`.
pub type LossFunction<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

/// What one slide gave.
#[derive(Debug)]
pub struct SlideGradients {
    /// Loss of the slide.
    pub loss: f64,
    /// Outputs for the slide, as the loss saw them.
    pub logits: Vec<f64>,
    /// Gradients of the loss; empty if the loss is not finite.
    pub gradients: Gradients,
    /// Pooled features `[1, P]`, for [`Model::update_statistics`]; no part of a graph.
    pub pooled: Tensor,
}

/// What the training loop needs of a model.
pub trait Model {
    /// The trainable variables.
    fn variables(&self) -> NamedVariables;

    /// Everything that a checkpoint keeps: weights and running statistics.
    fn tensors(&self) -> BTreeMap<String, Tensor>;

    /// Takes up what [`tensors`](Self::tensors) gave.
    ///
    /// # Errors
    /// [`TrainError::State`] for a tensor that is missing, unknown or misshapen; nothing is changed then.
    fn load_tensors(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()>;

    /// What activations are stored as: a checkpoint of another is another run's.
    fn precision(&self) -> Precision {
        Precision::F32
    }

    /// Decisions that results depend on in their last bits, for the checkpoint.
    fn recipes(&self) -> Vec<Recipe>;

    /// Takes up what [`recipes`](Self::recipes) gave.
    fn load_recipes(&self, recipes: Vec<Recipe>);

    /// Takes the scale of the numbers that are to be learnt, and starts the head's bias at their mean. From then on
    /// [`predict`](Self::predict) gives numbers in their own unit; losses see [deviations](TargetScale).
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    fn set_target_scale(&self, scale: TargetScale) -> Result<()>;

    /// Outputs for an image, without gradients; a number in its own unit.
    ///
    /// # Errors
    /// An image that cannot be read or is too small for the network.
    fn predict(&self, image: &dyn TileSource) -> Result<Vec<f64>>;

    /// Pooled features `[1, P]` of an image, without gradients.
    ///
    /// # Errors
    /// As for [`predict`](Self::predict).
    fn pooled(&self, image: &dyn TileSource) -> Result<Tensor>;

    /// The trainable variables in groups, for learning rates and weight decay of their own.
    fn parameter_groups(&self) -> Vec<ParameterGroup> {
        ParameterGroup::of(&self.variables())
    }

    /// Loss and gradients of an image.
    ///
    /// # Errors
    /// As for [`predict`](Self::predict), and whatever the loss refuses.
    fn gradients(&self, image: &dyn TileSource, loss: LossFunction<'_>) -> Result<SlideGradients>;

    /// Draws what a training leaves to chance in the network itself, such as which branches a step does without, for
    /// [`gradients`](Self::gradients) from now on. By default there is nothing.
    ///
    /// # Errors
    /// [`TrainError::Stream`].
    fn draw(&self, rng: &mut ChaCha8Rng) -> Result<()> {
        let _ = rng;
        Ok(())
    }

    /// Leaves nothing to chance from now on, as for predicting.
    ///
    /// # Errors
    /// [`TrainError::Stream`].
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Whether running statistics are used that have never been updated.
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    fn needs_statistics(&self) -> Result<bool>;

    /// Updates running statistics with the pooled features of a group of slides.
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    fn update_statistics(&self, group: &[Tensor]) -> Result<()>;
}

/// Names of the target scale's tensors, of models that predict a number.
const TARGET_MEAN: &str = "target.mean";
const TARGET_DEVIATION: &str = "target.deviation";

/// A network that is streamed under a memory budget, and a head on its features. Of a network with several outputs, such as a feature
/// pyramid, the head takes all: each is pooled, and what that gives is put one after another, in the order of the outputs.
///
/// Plans are made once for each size of image.
pub struct StreamedModel {
    streamed: StreamedNet,
    head: Head,
    target_scale: Mutex<Option<TargetScale>>,
}

impl fmt::Debug for StreamedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self
            .streamed
            .trainable()
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        f.debug_struct("StreamedModel")
            .field("trainable", &names)
            .field("memory", &self.streamed.memory())
            .finish_non_exhaustive()
    }
}

impl StreamedModel {
    /// Builds a model with weights drawn from `seed`, or the network's from the file that the settings name.
    ///
    /// # Errors
    /// [`TrainError::Model`] for an unknown name, settings out of range, or a file of weights that cannot be read or are not this
    /// network's; [`TrainError::Setting`] for a frozen part that the network does not have, or a network of pixels, such as a U-Net; as [`ModelSettings::check`].
    pub fn new(settings: &ModelSettings, outputs: usize, seed: u64) -> Result<Self> {
        // Pooled logits of pixels are no features.
        settings.check_task(Task::Regression)?;
        let name: ModelName = settings.name.parse()?;
        Self::of(settings, (outputs, seed), |vb| Ok(name.build(vb)?))
    }

    /// The same, of any network: `net` builds it, whatever name the settings have.
    ///
    /// # Errors
    /// As [`new`](Self::new), and whatever `net` refuses.
    pub fn of(
        settings: &ModelSettings,
        (outputs, seed): (usize, u64),
        net: impl FnOnce(VarBuilder<'_>) -> Result<Net>,
    ) -> Result<Self> {
        let (streamed, head) = StreamedNet::build(settings, seed, Maps::Whole, net, |net, vb| {
            let channels = net.output_channels().sum();
            let top = Head::new(&settings.head(), channels, outputs, vb.pp("head"))?;
            let constants = ["running_mean", "running_var", "updates"];
            let constants = constants.map(|name| format!("head.{name}")).into();
            Ok(Top { top, constants })
        })?;
        Ok(Self {
            streamed,
            head,
            target_scale: Mutex::default(),
        })
    }

    /// The same model, with recipes chosen by `cost_model`; without this, by a fixed table. Recipes that a checkpoint
    /// [gave](Model::load_recipes) are used as they are.
    #[must_use]
    pub fn cost_model(mut self, cost_model: CostModel) -> Self {
        self.streamed.set_cost_model(cost_model);
        self
    }

    /// The same model, whose recipes compute tiles of one colour once if `reuse` says so; recipes that a checkpoint gave are used as
    /// they are.
    #[must_use]
    pub fn reuse(mut self, reuse: Reuse) -> Self {
        self.streamed.set_reuse(reuse);
        self
    }

    /// The network that is streamed.
    #[must_use]
    pub fn net(&self) -> &Net {
        self.streamed.net()
    }

    /// What stands on the features.
    pub(crate) const fn head(&self) -> &Head {
        &self.head
    }

    /// What the sweeps of one image may take.
    pub(crate) const fn memory(&self) -> ByteCount {
        self.streamed.memory()
    }

    /// The plan for images of `height x width` pixels.
    ///
    /// # Errors
    /// [`TrainError::Stream`] for an image too small or a budget below the minimum.
    pub fn plan(&self, height: u64, width: u64) -> Result<Plan> {
        self.streamed.plan(height, width)
    }

    /// What a plan for images of `height x width` pixels is asked for, unless a recipe is stored.
    #[must_use]
    pub fn request(&self, height: u64, width: u64) -> PlanRequest {
        self.streamed.request(height, width)
    }

    fn locked_scale(&self) -> MutexGuard<'_, Option<TargetScale>> {
        self.target_scale
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn target_scale_tensors(&self) -> Vec<(String, Tensor)> {
        let Some(scale) = *self.locked_scale() else {
            return Vec::new();
        };
        [
            (TARGET_MEAN, scale.mean),
            (TARGET_DEVIATION, scale.deviation),
        ]
        .into_iter()
        .filter_map(|(name, value)| {
            Some((name.to_owned(), Tensor::new(&[value], &Device::Cpu).ok()?))
        })
        .collect()
    }

    fn image_plan(&self, image: &dyn TileSource) -> Result<Plan> {
        let (height, width) = image.extent();
        self.plan(height, width)
    }
}

/// The one value of a tensor that is finite.
fn one_number(name: &str, tensor: &Tensor) -> Result<f64> {
    let values = numbers(tensor)?;
    match values.as_slice() {
        [value] if value.is_finite() => Ok(*value),
        _ => Err(TrainError::State {
            name: name.to_owned(),
            expected: "one finite number".to_owned(),
            found: format!("{values:?}"),
        }),
    }
}

/// The values of a tensor as f64, row by row.
pub(crate) fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

impl Model for StreamedModel {
    fn variables(&self) -> NamedVariables {
        self.streamed.trainable().clone()
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = self.streamed.tensors();
        tensors.extend(self.target_scale_tensors());
        tensors
    }

    fn load_tensors(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut tensors = tensors.clone();
        let scale = [TARGET_MEAN, TARGET_DEVIATION].map(|name| tensors.remove(name));
        let scale = match &scale {
            [Some(mean), Some(deviation)] => Some(TargetScale {
                mean: one_number(TARGET_MEAN, mean)?,
                deviation: one_number(TARGET_DEVIATION, deviation)?,
            }),
            _ => None,
        };
        self.streamed.load_tensors(&tensors)?;
        *self.locked_scale() = scale;
        Ok(())
    }

    fn precision(&self) -> Precision {
        self.streamed.precision()
    }

    fn recipes(&self) -> Vec<Recipe> {
        self.streamed.recipes()
    }

    fn load_recipes(&self, recipes: Vec<Recipe>) {
        self.streamed.load_recipes(recipes);
    }

    fn set_target_scale(&self, scale: TargetScale) -> Result<()> {
        if let Some(bias) = self.streamed.variable("head.fc.bias")? {
            bias.set(&bias.zeros_like()?)?;
        }
        *self.locked_scale() = Some(scale);
        Ok(())
    }

    fn predict(&self, image: &dyn TileSource) -> Result<Vec<f64>> {
        let mut outputs = numbers(&self.head.logits(&self.pooled(image)?)?)?;
        if let Some(scale) = *self.locked_scale() {
            outputs
                .iter_mut()
                .for_each(|output| *output = scale.restore(*output));
        }
        Ok(outputs)
    }

    fn pooled(&self, image: &dyn TileSource) -> Result<Tensor> {
        let (features, _) = self.image_plan(image)?.forward_all(image)?;
        let features: Vec<Tensor> = features.iter().map(Tensor::detach).collect();
        Ok(self.head.pooled_all(&features)?)
    }

    fn gradients(&self, image: &dyn TileSource, loss: LossFunction<'_>) -> Result<SlideGradients> {
        let plan = self.image_plan(image)?;
        let (features, residuals) = plan.forward_all(image)?;
        let pooled = self.head.pooled_all(&features)?;
        let logits = self.head.logits(&pooled)?;
        let loss = loss(&logits)?;
        let value = loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let gradients = if value.is_finite() {
            Gradients::from_store(
                self.streamed.trainable(),
                &plan.backward_all(residuals, &features, &loss)?,
            )
        } else {
            Gradients::default()
        };
        Ok(SlideGradients {
            loss: value,
            logits: numbers(&logits)?,
            gradients,
            pooled: pooled.detach(),
        })
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> Result<()> {
        Ok(self
            .net()
            .draw_stochastic_depth(|probability| rng.random::<f64>() < probability)?)
    }

    fn settle(&self) -> Result<()> {
        Ok(self.net().keep_all_branches()?)
    }

    fn needs_statistics(&self) -> Result<bool> {
        Ok(self.head.needs_statistics()?)
    }

    fn update_statistics(&self, group: &[Tensor]) -> Result<()> {
        self.head.update_statistics(group)?;
        Ok(())
    }
}

/// Sets `variables` to `tensors` of the same names and shapes, as [`Model::load_tensors`] does; nothing is changed unless all fit.
///
/// # Errors
/// [`TrainError::State`].
pub fn assign(variables: &BTreeMap<String, Var>, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let refuse = |name: &str, expected: String, found: String| {
        Err(TrainError::State {
            name: name.to_owned(),
            expected,
            found,
        })
    };
    for (name, variable) in variables {
        let Some(tensor) = tensors.get(name) else {
            return refuse(
                name,
                format!("{:?}", variable.dims()),
                "nothing of that name".to_owned(),
            );
        };
        if tensor.shape() != variable.shape() || tensor.dtype() != variable.dtype() {
            let describe = |tensor: &Tensor| format!("{:?} of {:?}", tensor.dtype(), tensor.dims());
            return refuse(name, describe(variable.as_tensor()), describe(tensor));
        }
    }
    if let Some(name) = tensors.keys().find(|name| !variables.contains_key(*name)) {
        return refuse(
            name,
            "a variable of the model".to_owned(),
            "a tensor that belongs to none".to_owned(),
        );
    }
    for (name, variable) in variables {
        if let Some(tensor) = tensors.get(name) {
            variable.set(tensor)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
