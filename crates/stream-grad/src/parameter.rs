//! Parameters of a network: candle tensors, as the engine reads them and as it hands back their gradients.

use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use candle_nn::VarBuilder;
use candle_nn::init::{DEFAULT_KAIMING_NORMAL, Init};
use rayon::prelude::*;
use stream_grad_engine::{
    ExternalError, GradientSink, Initial, ParameterId, ParameterProvider, ParameterRequest,
    ParameterShape, ParameterValues, Provided, Stored, ValuesMut,
};
use stream_grad_kernels::parallel_for;

/// A tensor that a layer reads: trainable if it is a candle `Var` and its layer may change it.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Full name, such as `layer1.0.conv1.weight`.
    pub name: String,
    /// The tensor; its identity is the `Var`'s.
    pub tensor: Tensor,
    /// Whether the backward sweep computes its gradient.
    pub trainable: bool,
}

impl Parameter {
    /// A parameter that trains if it is a `Var`.
    pub(crate) fn new(name: String, tensor: Tensor) -> Self {
        Self {
            name,
            trainable: tensor.is_variable(),
            tensor,
        }
    }

    /// Adds it to the parameters of a network; one that is already there (shared weights) keeps its place.
    pub(crate) fn register(self, parameters: &mut Vec<Self>) -> Provided {
        let mut known = parameters.iter();
        if let Some(place) = known.position(|known| known.tensor.id() == self.tensor.id()) {
            return Provided::Known(ParameterId(place));
        }
        let shape = ParameterShape {
            name: self.name.clone(),
            shape: self.tensor.dims().to_vec(),
            trainable: self.trainable,
            gradient_bytes: self.tensor.dtype().size_in_bytes(),
        };
        parameters.push(self);
        Provided::New(shape)
    }
}

/// Gets the parameters of a layer from a `VarBuilder`, which makes them where it makes tensors.
pub(crate) struct Registry<'a, 'b> {
    vb: &'a VarBuilder<'b>,
    parameters: &'a mut Vec<Parameter>,
}

impl<'a, 'b> Registry<'a, 'b> {
    pub(crate) fn new(vb: &'a VarBuilder<'b>, parameters: &'a mut Vec<Parameter>) -> Self {
        Self { vb, parameters }
    }
}

impl ParameterProvider for Registry<'_, '_> {
    fn provide(&mut self, request: ParameterRequest<'_>) -> Result<Provided, ExternalError> {
        let ParameterRequest {
            name,
            shape,
            initial,
            constant,
        } = request;
        let init = match initial {
            Initial::KaimingNormal => DEFAULT_KAIMING_NORMAL,
            Initial::Constant(value) => Init::Const(value),
        };
        let tensor = self.vb.get_with_hints(shape, name, init)?;
        let prefix = self.vb.prefix();
        let name = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}.{name}")
        };
        let mut parameter = Parameter::new(name, tensor);
        parameter.trainable &= !constant;
        Ok(parameter.register(self.parameters))
    }
}

/// All parameters of a network.
#[derive(Debug, Clone)]
pub(crate) struct Parameters(pub(crate) Arc<[Parameter]>);

impl ParameterValues for Parameters {
    /// Copies a tensor's values, rounded or widened. What lies in memory in order is not copied on the way.
    fn read(&self, parameter: ParameterId, values: ValuesMut<'_>) -> Result<(), ExternalError> {
        let tensor = &self.0.get(parameter.0).ok_or("no such parameter")?.tensor;
        let tensor = match tensor.dtype() {
            DType::F32 | DType::F64 => tensor.contiguous()?,
            _ => tensor.to_dtype(DType::F32)?.contiguous()?,
        };
        let (storage, layout) = tensor.storage_and_layout();
        let (start, end) = layout
            .contiguous_offsets()
            .ok_or("a tensor that is not contiguous")?;
        match (&*storage, values) {
            (Storage::Cpu(CpuStorage::F32(from)), ValuesMut::F32(to)) => {
                convert(from.get(start..end), to, |value| value)
            }
            (Storage::Cpu(CpuStorage::F32(from)), ValuesMut::F64(to)) => {
                convert(from.get(start..end), to, f64::from)
            }
            (Storage::Cpu(CpuStorage::F64(from)), ValuesMut::F32(to)) => {
                convert(from.get(start..end), to, f32::rounded)
            }
            (Storage::Cpu(CpuStorage::F64(from)), ValuesMut::F64(to)) => {
                convert(from.get(start..end), to, |value| value)
            }
            _ => Err("a parameter that is not on the CPU".into()),
        }
    }
}

/// Values that a task converts: fewer are not worth a task.
const TASK_VALUES: usize = 1 << 16;

/// The memory that is written is often fresh: that all threads do it shares out the page faults, too.
fn convert<T: Copy + Sync, U: Send>(
    from: Option<&[T]>,
    to: &mut [U],
    round: impl Fn(T) -> U + Sync,
) -> Result<(), ExternalError> {
    let from = from.filter(|from| from.len() == to.len());
    let from = from.ok_or("another number of values")?;
    let parts = to
        .par_chunks_mut(TASK_VALUES)
        .zip(from.par_chunks(TASK_VALUES));
    parallel_for(parts, |(to, from)| {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = round(from);
        }
    });
    Ok(())
}

/// Gathers the gradients of a network's parameters, each in its parameter's dtype.
pub(crate) struct Store<'a> {
    parameters: &'a [Parameter],
    gradients: GradStore,
}

impl<'a> Store<'a> {
    pub(crate) fn new(parameters: &'a [Parameter]) -> Self {
        Self {
            parameters,
            gradients: GradStore::default(),
        }
    }

    pub(crate) fn into_gradients(self) -> GradStore {
        self.gradients
    }
}

impl GradientSink for Store<'_> {
    fn add(&mut self, parameter: ParameterId, gradient: Vec<f64>) -> Result<(), ExternalError> {
        let parameter = &self
            .parameters
            .get(parameter.0)
            .ok_or("no such parameter")?
            .tensor;
        let gradient = if parameter.dtype() == DType::F32 {
            let rounded: Vec<f32> = gradient.into_par_iter().map(f32::rounded).collect();
            Tensor::from_vec(rounded, parameter.shape(), &Device::Cpu)?
        } else {
            Tensor::from_vec(gradient, parameter.shape(), &Device::Cpu)?
                .to_dtype(parameter.dtype())?
        };
        let gradient = match self.gradients.remove(parameter) {
            Some(other) => (other + gradient)?,
            None => gradient,
        };
        self.gradients.insert(parameter, gradient);
        Ok(())
    }
}
