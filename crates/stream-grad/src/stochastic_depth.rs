//! Residual branches that some steps of a training do without.
//!
//! Source: Huang, Sun, Liu, Sedra, Weinberger, "Deep Networks with Stochastic Depth", ECCV 2016; scaled as in torchvision's
//! `StochasticDepth`.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use stream_grad_engine::{
    ExternalError, Layer, ParameterProvider, ParameterRequest, Provided, StreamError,
};

use crate::Result;
use crate::branch::Branch;
use crate::net::{Net, NetBuilder};
use crate::parameter::Parameter;

impl NetBuilder {
    /// A residual branch, before it is added, that a step of a training does without, with a probability from 0 to less than 1. Until
    /// [`Net::draw_stochastic_depth`] says otherwise it is there, as in prediction.
    ///
    /// The factor has a name under `vb`, but is no parameter of the network: it is neither read from `vb` nor listed.
    ///
    /// # Errors
    /// Another probability, or a layer of another builder.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use stream_grad::{Conv2d, NetBuilder, PlanRequest};
    ///
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// let mut net = NetBuilder::new(2);
    /// let image = net.input();
    /// let branch = net.conv2d(image, Conv2d::new(2, 2, 3).padding(1), vb.pp("conv"))?;
    /// let branch = net.stochastic_depth(branch, 0.2, vb.pp("stochastic_depth"))?;
    /// let x = net.add(image, branch)?;
    /// let net = net.build(x)?;
    /// let plan = net.plan(PlanRequest::new(16, 16))?;
    ///
    /// let image = Tensor::randn(0f32, 1f32, (1, 2, 16, 16), &Device::Cpu)?;
    /// net.draw_stochastic_depth(|_probability| true)?; // every branch is dropped
    /// let (features, _) = plan.forward(&image)?;
    /// assert_eq!(features.flatten_all()?.to_vec1::<f32>()?, image.flatten_all()?.to_vec1::<f32>()?);
    /// net.keep_all_branches()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stochastic_depth(
        &mut self,
        x: Layer,
        probability: f64,
        vb: VarBuilder<'_>,
    ) -> Result<Layer> {
        let name = vb.prefix();
        if !(0.0..1.0).contains(&probability) {
            return Err(StreamError::Setting {
                layer: name,
                setting: "probability",
                found: probability.to_string(),
                expected: "0 or more and less than 1",
            });
        }
        let factor = Var::ones(1, DType::F64, &Device::Cpu)?;
        let mut provider = Factor {
            factor: &factor,
            layer: &name,
            parameters: &mut self.parameters,
        };
        let layer = self.network.stochastic_depth(x, &name, &mut provider)?;
        self.branches.push(Branch {
            factor,
            probability,
        });
        Ok(layer)
    }
}

impl Net {
    /// Draws, for the forward sweeps from now on, which [branches](NetBuilder::stochastic_depth) they do without: `drop` is told how
    /// probable that is, branch by branch in the order of the layers, and decides. One that stays is multiplied by
    /// `1 / (1 - probability)`, so that what is expected of it is what it is without this.
    ///
    /// A draw holds for all images of a batch, as with `mode="batch"` of torchvision's `StochasticDepth`; with one image in a batch that is
    /// `mode="row"`, too. A backward sweep goes by what its forward sweep read. Clones of a network, and what is made of it by
    /// [`up_to`](Self::up_to), share their branches.
    ///
    /// # Errors
    /// Whatever candle says.
    pub fn draw_stochastic_depth(&self, mut drop: impl FnMut(f64) -> bool) -> Result<()> {
        self.set_branches(|probability| {
            if drop(probability) {
                0.0
            } else {
                1.0 / (1.0 - probability)
            }
        })
    }

    /// All branches are there in the forward sweeps from now on, as at first: for predicting.
    ///
    /// # Errors
    /// Whatever candle says.
    pub fn keep_all_branches(&self) -> Result<()> {
        self.set_branches(|_| 1.0)
    }

    /// How probable it is, of each [branch](NetBuilder::stochastic_depth), that a step does without it.
    pub fn branch_probabilities(&self) -> impl Iterator<Item = f64> {
        self.branches.iter().map(|branch| branch.probability)
    }

    fn set_branches(&self, mut factor: impl FnMut(f64) -> f64) -> Result<()> {
        for branch in self.branches.iter() {
            let value = factor(branch.probability);
            let value = Tensor::from_slice(&[value], 1, &Device::Cpu)?;
            branch.factor.set(&value)?;
        }
        Ok(())
    }
}

/// Hands out the factor of a branch.
struct Factor<'a> {
    factor: &'a Var,
    layer: &'a str,
    parameters: &'a mut Vec<Parameter>,
}

impl ParameterProvider for Factor<'_> {
    fn provide(&mut self, request: ParameterRequest<'_>) -> Result<Provided, ExternalError> {
        let factor = Parameter {
            name: format!("{}.{}", self.layer, request.name),
            tensor: self.factor.as_tensor().clone(),
            trainable: false,
        };
        Ok(factor.register(self.parameters))
    }
}
