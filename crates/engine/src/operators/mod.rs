//! The operators, a file for each, and the list of them.

mod add;
mod affine;
mod concat;
mod conv_transpose;
mod convolution;
mod custom;
mod image;
mod layer_norm;
mod multiply;
mod pointwise;
mod pool;
mod upsample;

use stream_grad_kernels::KernelError;
use stream_grad_tiling::{AxisRule, PerAxis, Shifts, TilingError, VjpReads};

use crate::backend::Backend;
use crate::error::{Result, StreamError};
use crate::operator::plain::{GradientWriter, Plain};
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{
    Absorbed, Copies, Fusible, Needs, NodeShape, Operator, OperatorKey, VjpWeights,
};
use crate::parameter::{ParameterId, ParameterShape};

pub(crate) use add::Add;
pub(crate) use affine::Affine;
pub(crate) use concat::Concat;
pub(crate) use conv_transpose::TransposedConvolution;
pub(crate) use convolution::Convolution;
pub(crate) use custom::Custom;
pub use custom::{CustomOperator, CustomState, LocalRegion};
pub(crate) use image::Image;
pub(crate) use layer_norm::LayerNorm;
pub(crate) use multiply::Multiply;
pub(crate) use pointwise::PointwiseOperator;
pub(crate) use pool::Pool;
pub(crate) use upsample::Upsample;

/// Registers operators: any of them, what any of them prepares, and which one is meant when one is asked.
macro_rules! operators {
    ($($name:ident: $operator:ty),+ $(,)?) => {
        /// Any operator.
        #[derive(Debug, Clone)]
        pub(crate) enum AnyOperator {
            $($name($operator)),+
        }

        /// What any operator prepares.
        pub(crate) enum AnyPrepared<B: Backend> {
            /// It was freed.
            Freed,
            /// It is made whenever it is read.
            OnUse,
            $($name(<$operator as Operator>::Prepared<B>)),+
        }

        /// What the VJP of any operator reads besides.
        pub(crate) enum AnyTransposed<B: Backend> {
            /// Nothing.
            Nothing,
            /// It is made whenever it is read.
            OnUse,
            $($name(<$operator as Operator>::Transposed<B>)),+
        }

        $(
            impl From<$operator> for AnyOperator {
                fn from(operator: $operator) -> Self {
                    Self::$name(operator)
                }
            }
        )+

        /// Evaluates the expression for whichever operator it is.
        macro_rules! ask {
            ($any:expr, $one:ident => $answer:expr) => {
                match $any {
                    $(AnyOperator::$name($one) => $answer),+
                }
            };
        }

        impl AnyOperator {
            /// Makes what the forward computation reads.
            pub(crate) fn prepare<B: Backend>(
                &self,
                plain: &Plain<'_, B>,
                node: NodeShape,
            ) -> Result<AnyPrepared<B>> {
                match self {
                    $(Self::$name(operator) => operator.prepare(plain, node).map(AnyPrepared::$name)),+
                }
            }

            /// Makes what the VJP reads.
            pub(crate) fn transpose<B: Backend>(
                &self,
                plain: &Plain<'_, B>,
                needs: &Needs<'_>,
            ) -> Result<AnyTransposed<B>> {
                match self {
                    $(Self::$name(operator) => Ok(operator
                        .transpose(plain, needs)?
                        .map_or(AnyTransposed::Nothing, AnyTransposed::$name))),+
                }
            }

            /// Computes the outputs of one tile.
            pub(crate) fn forward<B: Backend>(
                &self,
                prepared: &AnyPrepared<B>,
                step: ForwardStep<'_, B>,
            ) -> Result<()> {
                match (self, prepared) {
                    $((Self::$name(operator), AnyPrepared::$name(prepared)) => {
                        operator.forward(prepared, step)
                    })+
                    _ => Err(step.internal("its parameters are not prepared")),
                }
            }

            /// Runs the VJP over the outputs of one tile.
            pub(crate) fn vjp<B: Backend>(
                &self,
                (prepared, transposed): (&AnyPrepared<B>, &AnyTransposed<B>),
                step: VjpStep<'_, B>,
            ) -> Result<()> {
                match self {
                    $(Self::$name(operator) => {
                        let weights = VjpWeights {
                            prepared: match prepared {
                                AnyPrepared::$name(prepared) => Some(prepared),
                                _ => None,
                            },
                            transposed: match transposed {
                                AnyTransposed::$name(transposed) => Some(transposed),
                                _ => None,
                            },
                        };
                        operator.vjp(weights, step)
                    })+
                }
            }

            /// Makes gradients of parameters from sums.
            pub(crate) fn gradients<B: Backend>(
                &self,
                sums: Vec<B::Sums>,
                transposed: AnyTransposed<B>,
                plain: &Plain<'_, B>,
                gradients: &mut GradientWriter<'_>,
            ) -> Result<()> {
                match (self, transposed) {
                    $((Self::$name(operator), AnyTransposed::$name(transposed)) => {
                        operator.gradients(sums, Some(transposed), plain, gradients)
                    })+
                    $((Self::$name(operator), AnyTransposed::Nothing) => {
                        operator.gradients::<B>(sums, None, plain, gradients)
                    })+
                    _ => Err(StreamError::Internal {
                        layer: plain.layer.to_owned(),
                        what: "the weights of another operator are packed",
                    }),
                }
            }
        }
    };
}

operators! {
    Image: Image,
    Convolution: Convolution,
    TransposedConvolution: TransposedConvolution,
    Pool: Pool,
    Affine: Affine,
    LayerNorm: LayerNorm,
    Pointwise: PointwiseOperator,
    Add: Add,
    Multiply: Multiply,
    Concat: Concat,
    Upsample: Upsample,
    Custom: Custom,
}

impl AnyOperator {
    pub(crate) fn key(&self, node: NodeShape) -> OperatorKey {
        ask!(self, operator => operator.key(node))
    }

    pub(crate) fn rule(&self) -> Result<PerAxis<AxisRule>, TilingError> {
        ask!(self, operator => operator.rule())
    }

    pub(crate) fn shifts(&self) -> Shifts {
        ask!(self, operator => operator.shifts())
    }

    pub(crate) fn parameters(&self) -> Vec<ParameterId> {
        ask!(self, operator => operator.parameters())
    }

    pub(crate) fn vjp_reads(&self, trains: bool) -> VjpReads {
        ask!(self, operator => operator.vjp_reads(trains))
    }

    pub(crate) fn forward_flops(&self, channels: usize) -> u64 {
        ask!(self, operator => operator.forward_flops(channels))
    }

    pub(crate) fn vjp_flops(&self, channels: usize, needs: &Needs<'_>) -> u64 {
        ask!(self, operator => operator.vjp_flops(channels, needs))
    }

    pub(crate) fn replaces_cotangent(&self) -> bool {
        ask!(self, operator => operator.replaces_cotangent())
    }

    pub(crate) fn fusible(&self) -> Fusible {
        ask!(self, operator => operator.fusible())
    }

    pub(crate) fn absorb(&mut self, next: &Fusible, inputs: usize) -> Absorbed {
        ask!(self, operator => operator.absorb(next, inputs))
    }

    /// Whether it computes on values that were rounded more than its arithmetic rounds: kernels do.
    pub(crate) fn takes_rounded(&self) -> bool {
        match self {
            Self::Custom(custom) => custom.operator.takes_bf16(),
            _ => true,
        }
    }

    pub(crate) fn scratch<B: Backend>(&self, backend: &B) -> usize {
        ask!(self, operator => operator.scratch(backend))
    }

    pub(crate) fn sums(&self, channels: usize, parameters: &[ParameterShape]) -> Vec<usize> {
        ask!(self, operator => operator.sums(channels, parameters))
    }

    pub(crate) fn copies<B: Backend>(
        &self,
        backend: &B,
        node: NodeShape,
        parameters: &[ParameterShape],
        needs: &Needs<'_>,
    ) -> Result<Copies, KernelError> {
        ask!(self, operator => operator.copies(backend, node, parameters, needs))
    }
}
