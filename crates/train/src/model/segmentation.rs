//! A network that gives logits for each pixel, streamed both ways.

use std::collections::BTreeMap;
use std::fmt;

use candle_core::Tensor;
use candle_nn::VarBuilder;
use stream_grad::tiling::{ByteCount, Recipe, Reuse};
use stream_grad::{CostModel, FeatureSink, Maps, Net, Plan, PlanRequest, TileSource};
use stream_grad_models::ModelName;

use super::streamed::{StreamedNet, Top};
use super::{ModelSettings, Precision};
use crate::error::{Result, TrainError};
use crate::gradients::{Gradients, NamedVariables};
use crate::loss::{SegmentationLoss, SegmentationSums};
use crate::metrics::Confusion;
use crate::optimizer::ParameterGroup;
use crate::source::LabelSource;

/// The size of image by which it is seen whether a network's logits are those of pixels: a multiple of what any of them reduces by.
const TRIED: u64 = 512;

/// What the pixels of one slide gave.
#[derive(Debug)]
pub struct PixelGradients {
    /// Loss of the slide.
    pub loss: f64,
    /// How many pixels of each class were taken for each.
    pub confusion: Confusion,
    /// Gradients of the loss; empty if the loss is not finite.
    pub gradients: Gradients,
}

/// A network whose outputs are a logit of each class for every pixel, such as a U-Net. Logits leave region by region, and so do
/// their cotangents come: neither they nor labels are ever in memory as a whole.
pub struct SegmentationModel {
    streamed: StreamedNet,
    classes: usize,
}

impl fmt::Debug for SegmentationModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentationModel")
            .field("classes", &self.classes)
            .field("memory", &self.streamed.memory())
            .finish_non_exhaustive()
    }
}

impl SegmentationModel {
    /// Builds a model with weights drawn from `seed`, or those of the file that the settings name. Of the settings, the head's have no
    /// meaning here.
    ///
    /// # Errors
    /// As [`StreamedModel::new`](super::StreamedModel::new); [`TrainError::Setting`] for a network that does not give `classes` logits
    /// for each pixel, with both numbers.
    pub fn new(settings: &ModelSettings, classes: usize, seed: u64) -> Result<Self> {
        let name: ModelName = settings.name.parse()?;
        Self::of(settings, (classes, seed), |vb| Ok(name.build(vb)?))
    }

    /// The same, of any network: `net` builds it, whatever name the settings have.
    ///
    /// # Errors
    /// As [`new`](Self::new), and whatever `net` refuses.
    pub fn of(
        settings: &ModelSettings,
        (classes, seed): (usize, u64),
        net: impl FnOnce(VarBuilder<'_>) -> Result<Net>,
    ) -> Result<Self> {
        let none = |net: &Net, _: VarBuilder<'_>| {
            check_outputs(&settings.name, net, classes)?;
            Ok(Top {
                top: (),
                constants: Vec::new(),
            })
        };
        let (streamed, ()) = StreamedNet::build(settings, seed, Maps::Streamed, net, none)?;
        Ok(Self { streamed, classes })
    }

    /// The same model, with recipes chosen by `cost_model`; without this, by a fixed table. Recipes that a checkpoint gave are used as
    /// they are.
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

    /// Logits of each pixel.
    #[must_use]
    pub const fn classes(&self) -> usize {
        self.classes
    }

    /// The network that is streamed.
    #[must_use]
    pub const fn net(&self) -> &Net {
        self.streamed.net()
    }

    /// The plan for images of `height x width` pixels.
    ///
    /// # Errors
    /// [`TrainError::Stream`] for an image whose size does not fit the network, or a budget below the minimum.
    pub fn plan(&self, height: u64, width: u64) -> Result<Plan> {
        self.streamed.plan(height, width)
    }

    /// What a plan for images of `height x width` pixels is asked for, unless a recipe is stored.
    #[must_use]
    pub fn request(&self, height: u64, width: u64) -> PlanRequest {
        self.streamed.request(height, width)
    }

    /// What the sweeps of one image may take.
    #[must_use]
    pub const fn memory(&self) -> ByteCount {
        self.streamed.memory()
    }

    /// What activations are stored as.
    #[must_use]
    pub const fn precision(&self) -> Precision {
        self.streamed.precision()
    }

    /// The trainable variables.
    #[must_use]
    pub fn variables(&self) -> NamedVariables {
        self.streamed.trainable().clone()
    }

    /// The trainable variables in groups, for learning rates and weight decay of their own.
    #[must_use]
    pub fn parameter_groups(&self) -> Vec<ParameterGroup> {
        ParameterGroup::of(self.streamed.trainable())
    }

    /// Everything that a checkpoint keeps.
    #[must_use]
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.streamed.tensors()
    }

    /// Takes up what [`tensors`](Self::tensors) gave.
    ///
    /// # Errors
    /// [`TrainError::State`] for a tensor that is missing, unknown or misshapen; nothing is changed then.
    pub fn load_tensors(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        self.streamed.load_tensors(tensors)
    }

    /// Decisions that results depend on in their last bits, for the checkpoint.
    #[must_use]
    pub fn recipes(&self) -> Vec<Recipe> {
        self.streamed.recipes()
    }

    /// Takes up what [`recipes`](Self::recipes) gave.
    pub fn load_recipes(&self, recipes: Vec<Recipe>) {
        self.streamed.load_recipes(recipes);
    }

    /// Loss and gradients of an image, by a forward and a backward sweep.
    ///
    /// # Errors
    /// [`TrainError::State`] for labels of another size than the image's; an image or labels that cannot be read, or do not fit the
    /// network.
    pub fn gradients(
        &self,
        image: &dyn TileSource,
        labels: &dyn LabelSource,
        loss: &SegmentationLoss,
    ) -> Result<PixelGradients> {
        let plan = self.image_plan(image, Some(labels))?;
        let mut sink = loss.sink(labels);
        let residuals = plan.forward_to(image, &mut sink)?;
        let sums = sink.into_sums();
        let value = loss.value(&sums);
        let gradients = if value.is_finite() {
            let mut cotangents = loss.cotangents(labels, &sums);
            let store = plan.vjp_from(residuals, &mut cotangents, None)?;
            Gradients::from_store(self.streamed.trainable(), &store)
        } else {
            Gradients::default()
        };
        Ok(PixelGradients {
            loss: value,
            confusion: sums.confusion().clone(),
            gradients,
        })
    }

    /// What the loss is made of, by a forward sweep alone.
    ///
    /// # Errors
    /// As [`gradients`](Self::gradients).
    pub fn evaluate(
        &self,
        image: &dyn TileSource,
        labels: &dyn LabelSource,
        loss: &SegmentationLoss,
    ) -> Result<SegmentationSums> {
        let mut sink = loss.sink(labels);
        let plan = self.image_plan(image, Some(labels))?;
        drop(plan.forward_to(image, &mut sink)?);
        Ok(sink.into_sums())
    }

    /// Hands the logits of an image to `sink`, region by region.
    ///
    /// # Errors
    /// An image that cannot be read or does not fit the network, and whatever `sink` refuses.
    pub fn logits_to(&self, image: &dyn TileSource, sink: &mut dyn FeatureSink) -> Result<()> {
        drop(self.image_plan(image, None)?.forward_to(image, sink)?);
        Ok(())
    }

    fn image_plan(&self, image: &dyn TileSource, labels: Option<&dyn LabelSource>) -> Result<Plan> {
        let (height, width) = image.extent();
        if let Some((rows, columns)) = labels
            .map(LabelSource::extent)
            .filter(|extent| *extent != (height, width))
        {
            return Err(TrainError::State {
                name: "label map".to_owned(),
                expected: format!("{height} x {width} pixels, as the image"),
                found: format!("{rows} x {columns}"),
            });
        }
        self.plan(height, width)
    }
}

/// Refuses a network that does not give `classes` logits for each pixel, and nothing else.
fn check_outputs(name: &str, net: &Net, classes: usize) -> Result<()> {
    let (height, width) = net.output_extent(TRIED, TRIED)?;
    let found = match net.output_channels().collect::<Vec<_>>()[..] {
        [channels] if (channels, height, width) == (classes, TRIED, TRIED) => return Ok(()),
        [channels] => format!(
            "{channels} values for each of {height} x {width} positions of {TRIED} x {TRIED} pixels"
        ),
        ref several => {
            let names: Vec<&str> = net.output_names().collect();
            format!("{} outputs ({})", several.len(), names.join(", "))
        }
    };
    Err(TrainError::setting(
        "model.name",
        format!(
            "a network that gives {classes} logits for each pixel, one for each class, such as unet_resnet18-{classes}"
        ),
        format!("`{name}`, which gives {found}"),
    ))
}

#[cfg(test)]
mod tests {
    use stream_grad::{Conv2d, NetBuilder};

    use super::*;
    use crate::model::StreamedModel;

    fn settings(name: &str) -> ModelSettings {
        ModelSettings {
            name: name.to_owned(),
            ..ModelSettings::default()
        }
    }

    #[test]
    fn networks_of_other_outputs_are_refused_with_both_numbers() {
        for (name, parts) in [
            (
                "unet_resnet18-4",
                [
                    "3 logits for each pixel",
                    "gives 4 values",
                    "`unet_resnet18-4`",
                ],
            ),
            (
                "resnet18",
                [
                    "3 logits for each pixel",
                    "gives 512 values",
                    "16 x 16 positions",
                ],
            ),
        ] {
            let error = SegmentationModel::new(&settings(name), 3, 0).unwrap_err();
            let message = error.to_string();
            for part in parts {
                assert!(message.contains(part), "{part} in {message}");
            }
        }
        let model = SegmentationModel::new(&settings("unet_resnet18-3"), 3, 0).unwrap();
        assert_eq!(model.classes(), 3);
    }

    /// The first output alone would do.
    #[test]
    fn a_network_of_several_outputs_is_refused_with_their_names() {
        let net = |vb: VarBuilder<'_>| -> Result<Net> {
            let mut net = NetBuilder::new(3);
            let fine = net.conv2d(net.input(), Conv2d::new(3, 3, 1), vb.pp("fine"))?;
            let coarse = net.conv2d(fine, Conv2d::new(3, 3, 1).stride(2), vb.pp("coarse"))?;
            Ok(net.build_named(vec![("fine".into(), fine), ("coarse".into(), coarse)])?)
        };
        let error = SegmentationModel::of(&settings("mine"), (3, 0), net).unwrap_err();
        let message = error.to_string();
        for part in [
            "3 logits for each pixel",
            "`mine`, which gives 2 outputs (fine, coarse)",
        ] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    /// Pooled logits of pixels are no features: who wants a label for each slide takes the encoder.
    #[test]
    fn a_unet_is_no_network_of_slides() {
        let error = StreamedModel::new(&settings("unet_resnet18-3"), 1, 0).unwrap_err();
        let message = error.to_string();
        for part in ["`unet_resnet18-3`", "segmentation", "resnet18"] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
}
