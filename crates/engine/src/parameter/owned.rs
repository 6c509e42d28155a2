//! Parameters that the caller holds as plain numbers, without a tensor library.

use crate::element::{Stored, ValuesMut};
use crate::error::{ExternalError, Result, StreamError};
use crate::network::{
    Initial, Layer, Model, Network, NetworkBuilder, ParameterProvider, ParameterRequest, Provided,
};
use crate::parameter::{GradientSink, ParameterId, ParameterShape, ParameterValues};

/// The values of a network's parameters, in double precision, made while the network is built.
///
/// ```
/// use stream_grad_engine::{
///     Conv2d, NetworkBuilder, OwnedGradients, OwnedModel, OwnedParameters, Plan, PlanRequest, Exchange, Model,
///     Pointwise, WholeMaps,
/// };
///
/// let mut parameters = OwnedParameters::new(7);
/// let mut net = NetworkBuilder::new(3);
/// let x = net.conv2d(net.input(), Conv2d::new(3, 8, 3).padding(1), "conv", &mut parameters)?;
/// let x = net.pointwise(x, Pointwise::Relu)?;
/// let model = OwnedModel::new(net, vec![("features".into(), x)], parameters)?;
///
/// let plan = Plan::new(model.network(), PlanRequest::new(100, 75).tile(32))?;
/// let image = WholeMaps::<f32>::noise(&[plan.input_shape()]);
/// let mut features = WholeMaps::<f32>::zeros(&plan.output_shapes());
/// let residuals = plan.forward_to(model.values(), &image, &mut features)?;
/// // Of half the sum of squares, the cotangent is the features.
/// let exchange = Exchange { cotangents: &mut features, input_gradient: None, taps: None };
/// let mut gradients = OwnedGradients::default();
/// plan.vjp(residuals, exchange, &mut gradients)?;
/// assert_eq!(gradients.get(model.parameter("weight")?).map(<[f64]>::len), Some(8 * 3 * 9));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct OwnedParameters {
    names: Vec<String>,
    values: Vec<Vec<f64>>,
    seed: u64,
}

/// A network with parameters that the caller holds.
#[derive(Debug, Clone)]
pub struct OwnedModel {
    network: Network,
    parameters: OwnedParameters,
}

/// Gradients of parameters, in double precision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnedGradients(Vec<Option<Vec<f64>>>);

impl OwnedParameters {
    /// No parameters yet; those that are made depend on the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// The values of a parameter; none if there is no such parameter.
    pub fn values_mut(&mut self, id: ParameterId) -> &mut [f64] {
        self.values.get_mut(id.0).map_or(&mut [], Vec::as_mut_slice)
    }

    /// A number between 0 and 1, 1 excluded.
    fn uniform(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let bits = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }

    /// A normal number, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

impl ParameterProvider for OwnedParameters {
    fn provide(&mut self, request: ParameterRequest<'_>) -> Result<Provided, ExternalError> {
        let count: usize = request.shape.iter().product();
        let values = match request.initial {
            Initial::Constant(value) => vec![value; count],
            Initial::KaimingNormal => {
                let inputs: usize = request.shape.iter().skip(1).product();
                let inputs = u32::try_from(inputs.max(1)).unwrap_or(u32::MAX);
                let deviation = (2.0 / f64::from(inputs)).sqrt();
                (0..count).map(|_| deviation * self.normal()).collect()
            }
        };
        self.names.push(request.name.to_owned());
        self.values.push(values);
        Ok(Provided::New(ParameterShape {
            name: request.name.to_owned(),
            shape: request.shape.to_vec(),
            trainable: !request.constant,
            gradient_bytes: size_of::<f64>(),
        }))
    }
}

impl ParameterValues for OwnedParameters {
    fn read(&self, parameter: ParameterId, values: ValuesMut<'_>) -> Result<(), ExternalError> {
        let from = self.values.get(parameter.0).ok_or("no such parameter")?;
        match values {
            ValuesMut::F32(to) => copy(from, to),
            ValuesMut::F64(to) => copy(from, to),
        }
    }
}

fn copy<T: Stored>(from: &[f64], to: &mut [T]) -> Result<(), ExternalError> {
    if from.len() != to.len() {
        return Err(format!("{} values, expected {}", from.len(), to.len()).into());
    }
    for (to, &from) in to.iter_mut().zip(from) {
        *to = T::rounded(from);
    }
    Ok(())
}

impl OwnedModel {
    /// The network with these outputs, and its parameters.
    ///
    /// # Errors
    /// As for [`NetworkBuilder::build`].
    pub fn new(
        builder: NetworkBuilder,
        outputs: Vec<(String, Layer)>,
        parameters: OwnedParameters,
    ) -> Result<Self> {
        Ok(Self {
            network: builder.build(outputs)?,
            parameters,
        })
    }

    /// The first parameter of this name within its layer.
    ///
    /// # Errors
    /// [`StreamError::Setting`] if there is none.
    pub fn parameter(&self, name: &str) -> Result<ParameterId> {
        let mut names = self.parameters.names.iter();
        let found = names.position(|known| known == name);
        found.map(ParameterId).ok_or_else(|| StreamError::Setting {
            layer: "net".into(),
            setting: "parameter",
            found: name.to_owned(),
            expected: "the name of a parameter",
        })
    }

    /// The values of a parameter.
    pub fn values_mut(&mut self, id: ParameterId) -> &mut [f64] {
        self.parameters.values_mut(id)
    }
}

impl Model for OwnedModel {
    fn network(&self) -> &Network {
        &self.network
    }

    fn values(&self) -> &dyn ParameterValues {
        &self.parameters
    }
}

impl OwnedGradients {
    /// The gradient of a parameter, if it has one.
    #[must_use]
    pub fn get(&self, id: ParameterId) -> Option<&[f64]> {
        self.0.get(id.0)?.as_deref()
    }
}

impl GradientSink for OwnedGradients {
    fn add(&mut self, parameter: ParameterId, gradient: Vec<f64>) -> Result<(), ExternalError> {
        if self.0.len() <= parameter.0 {
            self.0.resize(parameter.0 + 1, None);
        }
        match &mut self.0[parameter.0] {
            Some(sums) => sums
                .iter_mut()
                .zip(gradient)
                .for_each(|(sum, more)| *sum += more),
            none => *none = Some(gradient),
        }
        Ok(())
    }
}
