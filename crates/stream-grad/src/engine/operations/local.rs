//! Running a user's layer on a tile: between buffers in height x width x channels order and candle tensors.

use candle_core::{Device, Tensor};
use stream_grad_tiling::{PerAxis, Span};

use super::super::buffer::{Buffer, length};
use super::step::{ForwardStep, VjpStep};
use crate::error::Result;
use crate::local::results;
use crate::local::{LocalLayer, LocalRegion};
use crate::prepared::PreparedOperation;
use crate::scalar::Scalar;

impl<T: Scalar> ForwardStep<'_, '_, T> {
    pub(super) fn local(mut self, layer: &dyn LocalLayer) -> Result<()> {
        let PreparedOperation::Local { parameters } = self.prepared() else {
            return Err(self.unprepared());
        };
        let region = LocalRegion::of(&layer.rule(), self.owned, self.plane());
        let (input, output) = (self.input(0), self.output());
        let [from, to] = self.views([input, output])?;
        forward(layer, &region, parameters, (&input, from), (&output, to))
    }
}

impl<T: Scalar> VjpStep<'_, '_, T> {
    pub(super) fn local(mut self, layer: &dyn LocalLayer) -> Result<()> {
        let PreparedOperation::Local { parameters } = self.prepared() else {
            return Err(self.unprepared());
        };
        let region = LocalRegion::of(&layer.rule(), self.owned, self.plane());
        let (node, input, cotangent) = (self.node, self.input(0), self.cotangent());
        let input_cotangent = self.cotangent_of(self.operation().inputs[0]);
        if self.wants_input() {
            let buffers = [input, cotangent, input_cotangent];
            let (gradients, [x, g, to]) = self.gradients_and_views(buffers)?;
            let sums = &mut gradients.parameters.operations[node].weights;
            let (x, g) = ((&input, &*x), (&cotangent, &*g));
            let to = Some((&input_cotangent, to));
            return vjp(layer, &region, parameters, x, g, to, sums);
        }
        let (gradients, [x, g]) = self.gradients_and_views([input, cotangent])?;
        let sums = &mut gradients.parameters.operations[node].weights;
        let (x, g) = ((&input, &*x), (&cotangent, &*g));
        vjp(layer, &region, parameters, x, g, None, sums)
    }
}

/// Computes `region.outputs` into the output's buffer.
fn forward<T: Scalar>(
    layer: &dyn LocalLayer,
    region: &LocalRegion,
    parameters: &[Tensor],
    (input, from): (&Buffer, &[T]),
    (output, to): (&Buffer, &mut [T]),
) -> Result<()> {
    let x = gather(input, from, region.inputs)?;
    let y = results::forward(layer, region, parameters, &x, output.channels)?;
    let values = values(&y)?;
    scatter(output, to, region.outputs, &values, |place, value| {
        *place = value
    });
    Ok(())
}

/// Adds the cotangent of the inputs to `input_cotangent` and those of the parameters to `sums`.
fn vjp<T: Scalar>(
    layer: &dyn LocalLayer,
    region: &LocalRegion,
    parameters: &[Tensor],
    (input, from): (&Buffer, &[T]),
    (output, cotangent): (&Buffer, &[T]),
    input_cotangent: Option<(&Buffer, &mut [T])>,
    sums: &mut [Vec<f64>],
) -> Result<()> {
    let x = gather(input, from, region.inputs)?;
    let y_bar = gather(output, cotangent, region.outputs)?;
    let (x_bar, parameter_cotangents) = results::vjp(layer, region, parameters, &x, &y_bar)?;
    if let Some((buffer, to)) = input_cotangent {
        let values = values(&x_bar)?;
        scatter(buffer, to, region.inputs, &values, |place, value| {
            *place += value
        });
    }
    for (sum, gradient) in sums.iter_mut().zip(&parameter_cotangents) {
        for (sum, value) in sum.iter_mut().zip(values::<f64>(gradient)?) {
            *sum += value;
        }
    }
    Ok(())
}

/// A rectangle of a buffer as `[1, C, H, W]`, with zeros where it leaves the buffer: there is padding.
fn gather<T: Scalar>(buffer: &Buffer, data: &[T], rect: PerAxis<Span>) -> Result<Tensor> {
    let (height, width) = (length(rect.rows), length(rect.columns));
    let mut values = vec![T::ZERO; buffer.channels * height * width];
    for_each_position(buffer, rect, |position, at| {
        for channel in 0..buffer.channels {
            values[channel * height * width + position] = data[at + channel];
        }
    });
    Ok(Tensor::from_vec(
        values,
        (1, buffer.channels, height, width),
        &Device::Cpu,
    )?)
}

fn scatter<T: Scalar>(
    buffer: &Buffer,
    data: &mut [T],
    rect: PerAxis<Span>,
    values: &[T],
    combine: impl Fn(&mut T, T),
) {
    let plane = length(rect.rows) * length(rect.columns);
    for_each_position(buffer, rect, |position, at| {
        for channel in 0..buffer.channels {
            combine(&mut data[at + channel], values[channel * plane + position]);
        }
    });
}

/// Calls `visit(position in the rectangle, offset in the buffer)` for each position that lies in the buffer.
fn for_each_position(buffer: &Buffer, rect: PerAxis<Span>, mut visit: impl FnMut(usize, usize)) {
    let inside = rect.intersect(buffer.rect);
    for row in inside.rows.lo..inside.rows.hi {
        for column in inside.columns.lo..inside.columns.hi {
            let step = |index: i64, origin: i64| usize::try_from(index - origin).unwrap_or(0);
            let position =
                step(row, rect.rows.lo) * length(rect.columns) + step(column, rect.columns.lo);
            let at = step(row, buffer.rect.rows.lo) * buffer.width()
                + step(column, buffer.rect.columns.lo);
            visit(position, at * buffer.channels);
        }
    }
}

/// The values of a tensor in any dtype and order, row by row.
fn values<T: Scalar>(tensor: &Tensor) -> Result<Vec<T>> {
    Ok(tensor.to_dtype(T::KIND)?.flatten_all()?.to_vec1()?)
}
