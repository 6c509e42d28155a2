//! Convolution: forward pass and gradient by the input.

use crate::gather::{Addend, Axis, Direct, Gather};
use crate::integers::signed;
use crate::rows::for_each_row;
use crate::view::{check_length, check_scratch};
use crate::winograd::{Tiled, TiledGather};
use crate::{
    Activation, Convolution, DataGradientWeights, Existing, ForwardWeights, KernelError, Storage,
    View, ViewMut, Window,
};
use crate::{scatter, weight_gradient, winograd};

impl Convolution {
    /// Values of scratch that forward pass and gradients of this convolution need.
    ///
    /// # Errors
    /// [`KernelError`] where the convolution is malformed.
    pub fn scratch_len<E: Storage>(&self) -> Result<usize, KernelError> {
        self.check()?;
        Ok(winograd::scratch_len::<E>(self).max(weight_gradient::scratch_len::<E>(self)))
    }
}

/// What [`conv_forward`] does to a sum before it stores it: adds `bias`, adds `residual`, applies `activation`.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a, E: Storage> {
    /// One value for each output channel.
    pub bias: Option<&'a [E::Compute]>,
    /// The other branch of a residual connection: holds all that is computed.
    pub residual: Option<View<'a, E>>,
    /// The activation.
    pub activation: Activation,
}

impl<E: Storage> Default for Epilogue<'_, E> {
    fn default() -> Self {
        Self {
            bias: None,
            residual: None,
            activation: Activation::Identity,
        }
    }
}

fn weights_of(expected: &Convolution, packed: &Convolution) -> Result<(), KernelError> {
    for (what, expected, found) in [
        (
            "packed weights: input",
            expected.in_channels,
            packed.in_channels,
        ),
        (
            "packed weights: output",
            expected.out_channels,
            packed.out_channels,
        ),
    ] {
        if expected != found {
            return Err(KernelError::Channels {
                what,
                expected,
                found,
            });
        }
    }
    if expected.groups != packed.groups {
        return Err(KernelError::PackedGroups {
            expected: expected.groups,
            found: packed.groups,
        });
    }
    if expected.is_winograd() != packed.is_winograd() {
        let name = |convolution: &Convolution| {
            if convolution.is_winograd() {
                "Winograd's"
            } else {
                "direct"
            }
        };
        return Err(KernelError::Arithmetic {
            expected: name(expected),
            found: name(packed),
        });
    }
    let (expected, found) = (expected.window.kernel, packed.window.kernel);
    if expected != found {
        return Err(KernelError::Extent {
            what: "packed weights: kernel",
            expected_height: expected[0],
            expected_width: expected[1],
            height: found[0],
            width: found[1],
        });
    }
    Ok(())
}

/// Convolves `input` to `output`; taps outside `input` read zero.
///
/// Every value is the same sequence of floating-point operations whatever the views hold, so results are bitwise independent of
/// tiling and of the number of threads.
///
/// `scratch` has at least [`Convolution::scratch_len`] values, whatever they are; direct arithmetic does without.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
///
/// ```
/// use stream_grad_kernels::*;
///
/// // A 3 x 3 sum with padding 1 over a 2 x 2 image of ones.
/// let window = Window::new([3, 3]).padding(Padding::all(1));
/// let convolution = Convolution::new(window, 1, 1);
/// let weights = ForwardWeights::<f32>::pack(&convolution, &[1.0; 9])?;
/// let (plane, mut output) = (Rect::whole(2, 2), [0.0; 4]);
/// conv_forward(
///     &convolution,
///     &weights,
///     View::new(&[1.0; 4], plane, 1)?,
///     ViewMut::new(&mut output, plane, 1)?,
///     Epilogue::default(),
///     &mut [],
/// )?;
/// assert_eq!(output, [4.0; 4]);
/// # Ok::<(), KernelError>(())
/// ```
pub fn conv_forward<E: Storage>(
    convolution: &Convolution,
    weights: &ForwardWeights<E>,
    input: View<'_, E>,
    output: ViewMut<'_, E>,
    epilogue: Epilogue<'_, E>,
    scratch: &mut [E],
) -> Result<(), KernelError> {
    convolution.check()?;
    weights_of(convolution, &weights.0.convolution)?;
    input.check_channels("convolution input", convolution.in_channels)?;
    output.check_channels("convolution output", convolution.out_channels)?;
    let outputs = output.rect();
    let [first_row, first_column] = convolution.window.place(outputs, input.rect())?;
    check_scratch(winograd::scratch_len::<E>(convolution), scratch)?;
    if let Some(bias) = epilogue.bias {
        check_length("convolution bias", convolution.out_channels, bias.len())?;
    }
    let residual = epilogue
        .residual
        .map(|residual| {
            let channels = convolution.out_channels;
            let residual = residual.operand("convolution residual", channels, outputs)?;
            Ok(Addend {
                data: residual.data(),
                row_pitch: residual.pitch() * channels,
                pixel_pitch: channels,
            })
        })
        .transpose()?;

    let axis = |axis: usize, targets: usize, first: isize, extent: usize| Axis {
        target_first: 0,
        target_step: 1,
        targets,
        source_first: first,
        source_step: signed(convolution.window.stride[axis]),
        taps: convolution.window.kernel[axis],
        tap_step: signed(convolution.window.dilation[axis]),
        weight_first: 0,
        weight_step: 1,
        low: 0,
        high: signed(extent),
    };
    let gather = Gather {
        rows: axis(0, output.height(), first_row, input.height()),
        columns: axis(1, output.width(), first_column, input.width()),
        source: input.data(),
        source_pitch: input.pitch(),
        source_channels: input.channels(),
        target_pitch: output.pitch(),
        target_channels: output.channels(),
        target: output.into_data(),
        weights: weights.0.view(),
        existing: Existing::Replace,
        bias: epilogue.bias,
        residual,
        activation: epilogue.activation,
    };
    if convolution.is_winograd() {
        // The grid of tiles is fixed in the output's plane.
        let before = [outputs.rows.lo, outputs.columns.lo]
            .map(|first| usize::from(first.rem_euclid(2) != 0));
        E::operate::<Tiled>(TiledGather {
            gather,
            before,
            scratch,
        });
    } else {
        E::operate::<Direct>(gather);
    }
    Ok(())
}

/// Adds the gradient by the input to `input_cotangent`, or writes it there.
///
/// Contributions outside `input_cotangent` belong to padding, or to other tiles, and are dropped. `scratch` is as for
/// [`conv_forward`]. With [`Existing::Replace`] inputs that no window reaches get zero.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn conv_data_gradient<E: Storage>(
    convolution: &Convolution,
    weights: &DataGradientWeights<E>,
    cotangent: View<'_, E>,
    mut input_cotangent: ViewMut<'_, E>,
    mut existing: Existing,
    scratch: &mut [E],
) -> Result<(), KernelError> {
    convolution.check()?;
    weights_of(convolution, &weights.0.convolution)?;
    cotangent.check_channels("convolution cotangent", convolution.out_channels)?;
    input_cotangent.check_channels("convolution input cotangent", convolution.in_channels)?;
    let window = &convolution.window;
    let first = window.place(cotangent.rect(), input_cotangent.rect())?;
    check_scratch(winograd::scratch_len::<E>(convolution), scratch)?;
    let (height, width) = (input_cotangent.height(), input_cotangent.width());
    let channels = input_cotangent.channels();
    let outputs = [cotangent.height(), cotangent.width()];
    let rows = |first_target| phase(window, 0, first_target, height, first[0], outputs[0]);
    let columns = |first_target| phase(window, 1, first_target, width, first[1], outputs[1]);
    let [row_phases, column_phases] = window.stride;
    let reaches_all = || {
        (0..row_phases.min(height)).all(|phase| reaches_all(rows(phase), phase, height))
            && (0..column_phases.min(width)).all(|phase| reaches_all(columns(phase), phase, width))
    };
    let scatters = scatter::applies::<E>(convolution);
    if existing == Existing::Replace && (scatters || !reaches_all()) {
        for_each_row(input_cotangent.reborrow(), |_: usize, values: &mut [E]| {
            values.fill(E::ZERO);
        });
        existing = Existing::Add;
    }
    if scatters {
        scatter::run(
            convolution,
            weights.0.view(),
            cotangent,
            first,
            input_cotangent,
        );
        return Ok(());
    }
    for row_phase in 0..row_phases.min(height) {
        let Some(rows) = rows(row_phase) else {
            continue;
        };
        for column_phase in 0..column_phases.min(width) {
            let Some(columns) = columns(column_phase) else {
                continue;
            };
            let gather = Gather {
                rows,
                columns,
                source: cotangent.data(),
                source_pitch: cotangent.pitch(),
                source_channels: cotangent.channels(),
                target_pitch: input_cotangent.pitch(),
                target: input_cotangent.data_mut(),
                target_channels: channels,
                weights: weights.0.view(),
                existing,
                bias: None,
                residual: None,
                activation: Activation::Identity,
            };
            if convolution.is_winograd() {
                E::operate::<Tiled>(TiledGather {
                    gather,
                    before: [0, 0],
                    scratch,
                });
            } else {
                E::operate::<Direct>(gather);
            }
        }
    }
    Ok(())
}

/// The taps that reach the input positions `first_target, first_target + stride, …` of one axis, with the kernel
/// reversed; `None` where none does.
fn phase(
    window: &Window,
    axis: usize,
    first_target: usize,
    extent: usize,
    first_window: isize,
    outputs: usize,
) -> Option<Axis> {
    if outputs == 0 {
        return None;
    }
    let kernel = window.kernel[axis];
    let (stride, dilation) = (signed(window.stride[axis]), signed(window.dilation[axis]));
    let common = gcd(window.stride[axis], window.dilation[axis]);
    let tap_stride = window.stride[axis] / common;
    let from_first = signed(first_target) - first_window;
    // Output position * stride + tap * dilation = input position - first window.
    let first_tap = (0..kernel.min(tap_stride))
        .find(|&tap| (from_first - signed(tap) * dilation).rem_euclid(stride) == 0)?;
    let taps = (kernel - 1 - first_tap) / tap_stride + 1;
    let last_tap = first_tap + (taps - 1) * tap_stride;
    let output = (from_first - signed(last_tap) * dilation).div_euclid(stride);
    let targets = (extent - first_target).div_ceil(window.stride[axis]);

    // Positions that no window reaches are left alone.
    let tap_step = dilation / signed(common);
    let before = -(output + (signed(taps) - 1) * tap_step);
    let skipped = usize::try_from(before).unwrap_or_default();
    let reached = usize::try_from(signed(outputs) - output)
        .unwrap_or_default()
        .min(targets);
    if skipped >= reached {
        return None;
    }
    Some(Axis {
        target_first: first_target + skipped * window.stride[axis],
        target_step: window.stride[axis],
        targets: reached - skipped,
        source_first: output + signed(skipped),
        source_step: 1,
        taps,
        tap_step,
        weight_first: kernel - 1 - last_tap,
        weight_step: tap_stride,
        low: 0,
        high: signed(outputs),
    })
}

/// Whether a phase, if there is one, has all the targets that there are: `first_target, first_target + stride, …`.
fn reaches_all(phase: Option<Axis>, first_target: usize, extent: usize) -> bool {
    phase.is_some_and(|axis| {
        let all = (extent - first_target).div_ceil(axis.target_step);
        axis.target_first == first_target && axis.targets == all
    })
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
