use super::{ConvTranspose, POSITIONS, add_products, source};
use crate::blocks::{block, for_each_block};
use crate::integers::signed;
use crate::rows::for_each_row;
use crate::stored;
use crate::view::check_length;
use crate::{KernelError, Storage, View, ViewMut};

/// Weights and bias of a transposed convolution.
#[derive(Debug, Clone, Copy)]
pub struct TransposedWeights<'a, T> {
    /// In the order that [`ConvTranspose::forward_order`] makes.
    pub weights: &'a [T],
    /// One value for each output channel.
    pub bias: Option<&'a [T]>,
}

/// Computes `output`. Each output is summed by taps in scan order, and by channels: no bit depends on what else is computed.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
///
/// # Examples
/// ```
/// use stream_grad_kernels::{
///     ConvTranspose, Rect, TransposedWeights, View, ViewMut, Window, conv_transpose_forward,
/// };
///
/// // Each of two values, spread over three outputs that begin two apart.
/// let convolution = ConvTranspose::new(Window::new([1, 3]).stride([1, 2]), 1, 1);
/// let weights = convolution.forward_order(&[1.0, 10.0, 100.0])?;
/// let mut output = [0.0; 5];
/// conv_transpose_forward(
///     &convolution,
///     TransposedWeights { weights: &weights, bias: None },
///     View::new(&[1.0, 2.0], Rect::whole(1, 2), 1)?,
///     ViewMut::new(&mut output, Rect::whole(1, 5), 1)?,
/// )?;
/// assert_eq!(output, [1.0, 10.0, 102.0, 20.0, 200.0]);
/// # Ok::<(), stream_grad_kernels::KernelError>(())
/// ```
pub fn conv_transpose_forward<E: Storage>(
    convolution: &ConvTranspose,
    parameters: TransposedWeights<'_, E::Compute>,
    input: View<'_, E>,
    output: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    let TransposedWeights { weights, bias } = parameters;
    let [first_row, first_column] = convolution.check(
        weights.len(),
        (input.rect(), input.channels()),
        (output.rect(), output.channels()),
    )?;
    if let Some(bias) = bias {
        check_length("bias", convolution.out_channels, bias.len())?;
    }
    let width = output.width();
    for_each_row(
        output,
        #[inline(always)]
        |row: usize, output: &mut [E]| {
            let row = Row {
                convolution,
                parameters,
                input,
                place: first_row + signed(row),
                first: first_column,
            };
            let stride = convolution.window.stride[1];
            // Outputs a stride apart are reached by the same taps.
            for phase in 0..stride.min(width) {
                let places = (phase..width).step_by(stride);
                for first in places.step_by(POSITIONS) {
                    let places: [usize; POSITIONS] =
                        std::array::from_fn(|position| first + position * stride);
                    row.compute(places, output);
                }
            }
        },
    );
    Ok(())
}

/// One row of outputs.
struct Row<'a, E: Storage> {
    convolution: &'a ConvTranspose,
    parameters: TransposedWeights<'a, E::Compute>,
    input: View<'a, E>,
    /// On the grid.
    place: isize,
    /// Of the row's first output, on the grid.
    first: isize,
}

impl<E: Storage> Row<'_, E> {
    /// Computes the outputs at these columns; those beyond the row's end are none.
    #[inline(always)]
    fn compute(&self, columns: [usize; POSITIONS], output: &mut [E]) {
        let ConvTranspose {
            window,
            in_channels,
            out_channels,
            groups,
        } = *self.convolution;
        let (inputs, outputs) = (in_channels / groups, out_channels / groups);
        for group in 0..groups {
            for_each_block!(outputs, channel, N, {
                let start = match self.parameters.bias {
                    Some(bias) => *block::<_, N>(bias, group * outputs + channel),
                    None => [E::Compute::ZERO; N],
                };
                let mut sums = [start; POSITIONS];
                for tap_row in 0..window.kernel[0] {
                    let Some(row) = source(&window, 0, self.place, tap_row, self.input.height())
                    else {
                        continue;
                    };
                    for tap_column in 0..window.kernel[1] {
                        let sources = columns.map(|column| {
                            let place = self.first + signed(column);
                            let column = source(&window, 1, place, tap_column, self.input.width())?;
                            let pixel = self.input.span(row, column, 1);
                            Some(&pixel[group * inputs..][..inputs])
                        });
                        let tap = tap_row * window.kernel[1] + tap_column;
                        let weights = (tap * in_channels + group * inputs) * outputs + channel;
                        let weights = &self.parameters.weights[weights..];
                        add_products(&mut sums, sources, weights, outputs);
                    }
                }
                for (column, sums) in columns.into_iter().zip(sums) {
                    let place = column * out_channels + group * outputs + channel;
                    if let Some(output) = output.get_mut(place..place + N) {
                        stored::narrow(&sums, output);
                    }
                }
            });
        }
    }
}
