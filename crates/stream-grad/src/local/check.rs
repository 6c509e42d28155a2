//! A check of a layer's gradients, by central differences.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use stream_grad_tiling::{Axis, AxisRule, PerAxis, Rect, Span};

use super::LocalLayer;
use super::results::{failed, forward, length, vjp};
use crate::{LocalRegion, Result, StreamError};

/// Half the way between the two inputs of a difference, for values of up to 1.
const STEP: f64 = 1e-6;
/// How far two numbers may lie apart, as a part of the larger one and whatever they are.
const RELATIVE: f64 = 1e-5;
const ABSOLUTE: f64 = 1e-6;
/// Entries of one tensor that are changed one by one in one region; of larger tensors as many are drawn.
const ENTRIES: usize = 96;
/// Values that inputs with ties have.
const LEVELS: usize = 5;
/// The largest input that is tried when the smallest one with an output is looked for.
const LARGEST: i64 = 4096;

/// Checks, once and before anything is trained, that a layer computes what it says: that its values are those of its rule and
/// do not depend on the region asked for, and that its gradients, of the input and of all parameters, are those of its values.
///
/// It does what `torch.autograd.gradcheck` does, for the regions that tiles ask for. The layer computes in f64 on small random
/// images of `input_channels` channels with values in `inputs`: the smallest that gives an output, and larger ones with every
/// remainder of the stride (up to four). Of each, the whole output is asked for, then its corners, borders and interior by
/// themselves. Values must agree with those of the whole. Each entry of the input and of the parameters (96 of each tensor
/// where there are more, drawn by chance) is moved up and down by 1e-6, then all entries at once; the slope of the output,
/// weighted by a random cotangent, and the gradient may differ by 1e-5 of it and 1e-6.
///
/// No two values of an image are equal, so that functions with kinks (`relu`, maxima) are met beside them. Where the slopes
/// to both sides differ, anything between them is right: frameworks differ there. Last, images of five values, whose maxima
/// tie, are moved as a whole.
///
/// What it costs grows with channels and window; a second for a few channels. A check with few channels finds what one with
/// many would. [`CandleLayer`](super::CandleLayer) lists functions that candle differentiates wrongly; this is how they show:
///
/// ```
/// use stream_grad::tiling::{AxisRule, PerAxis, Window};
/// use stream_grad::{CandleLayer, check_gradients};
///
/// let window = |kernel, stride, padding| Window::new(kernel, stride, 1, padding, padding).map(AxisRule::Window);
/// let square = CandleLayer::new("square", PerAxis::both(window(3, 2, 1)?), |x, _| {
///     x.avg_pool2d_with_stride((3, 3), (1, 1))?.sqr()
/// });
/// // It averages with a stride of 1 where its rule says 2.
/// let error = check_gradients(&square, 2, -1.0..1.0).unwrap_err();
/// assert!(error.to_string().starts_with("layer `square`, output: expected shape [1, 2, "), "{error}");
///
/// let pooling = CandleLayer::new("pooling", PerAxis::both(window(2, 2, 0)?), |x, _| x.max_pool2d(2));
/// let error = check_gradients(&pooling, 1, -1.0..1.0).unwrap_err(); // candle gives a quarter of the gradient
/// assert!(error.to_string().contains("gradient of the input"), "{error}");
///
/// let swish = CandleLayer::new("swish", PerAxis::both(AxisRule::Pointwise), |x, _| x.silu());
/// check_gradients(&swish, 2, -3.0..3.0)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`StreamError::Gradient`] names the tensor, the entry, and both numbers; [`StreamError::RegionDependence`] a value that
/// depends on the region; [`StreamError::LocalResult`] a result of a wrong shape, dtype or number; [`StreamError::LocalLayer`]
/// what the layer itself refuses, f64 for instance, and values that are not finite: then give a range of inputs on which the
/// layer is defined; [`StreamError::Setting`] for a range that is none, or a rule that gives no output for up to 4096 inputs.
pub fn check_gradients(
    layer: &dyn LocalLayer,
    input_channels: usize,
    inputs: Range<f64>,
) -> Result<()> {
    let refused = |setting, found, expected| {
        Err(StreamError::Setting {
            layer: layer.name(),
            setting,
            found,
            expected,
        })
    };
    let width = inputs.end - inputs.start;
    if !(width.is_finite() && width > 0.0) {
        let expected = "two finite numbers, the smaller one first";
        return refused("range of inputs", format!("{inputs:?}"), expected);
    }
    let rule = layer.rule();
    let (rows, columns) = (sizes(&rule.rows), sizes(&rule.columns));
    if rows.is_empty() || columns.is_empty() {
        let expected = "a rule that gives an output for some size of up to 4096 inputs";
        return refused("rule", format!("{rule:?}"), expected);
    }
    let parameters = layer.parameters().into_iter();
    let parameters = parameters
        .map(|(_, tensor)| tensor.detach().to_dtype(DType::F64))
        .collect::<candle_core::Result<Vec<Tensor>>>()?;
    let check = Check {
        layer,
        rule,
        channels: input_channels,
        inputs,
        parameters,
    };
    let mut draw = Draw(0);
    for round in 0..rows.len().max(columns.len()) {
        // One axis is a size ahead, so that sizes of both are met in other pairs.
        let size = PerAxis::new(
            rows[round % rows.len()],
            columns[(round + 1) % columns.len()],
        );
        check.one_by_one(size, &mut draw)?;
        check.with_ties(size, &mut draw)?;
    }
    Ok(())
}

/// A layer under check.
struct Check<'a> {
    layer: &'a dyn LocalLayer,
    rule: PerAxis<AxisRule>,
    channels: usize,
    inputs: Range<f64>,
    parameters: Vec<Tensor>,
}

/// Values to move, and what moving them changes: the sum of the outputs, weighted.
struct Point {
    region: LocalRegion,
    cotangent: Tensor,
    /// The input, then the parameters.
    tensors: Vec<Tensor>,
}

/// A slope, seen from both sides.
struct Slope {
    up: f64,
    down: f64,
    /// What rounding makes of it.
    noise: f64,
}

impl Check<'_> {
    fn one_by_one(&self, size: PerAxis<i64>, draw: &mut Draw) -> Result<()> {
        let values = self.plane(size);
        let image = draw.distinct(values, &self.inputs);
        let output = self.output_size(size);
        let whole = self.region(size, output.map(|size| Span::new(0, size)));
        let complete = self.outputs(&whole, &self.part(&whole, &image)?)?;
        let regions = regions(output).map(|outputs| self.region(size, outputs));
        let mut met = Vec::new();
        for region in regions {
            let input = self.part(&region, &image)?;
            let outputs = self.outputs(&region, &input)?;
            self.same_values(&region, &outputs, &complete, output)?;
            met.push((region, input, outputs));
        }
        for (region, input, outputs) in met {
            let point = self.point(region, input, &outputs, draw)?;
            self.gradients(&point, draw)?;
        }
        Ok(())
    }

    /// Moves an image of few values as a whole: what ties goes on to tie.
    fn with_ties(&self, size: PerAxis<i64>, draw: &mut Draw) -> Result<()> {
        let image = draw.levels(self.plane(size), &self.inputs);
        let output = self.output_size(size);
        let region = self.region(size, output.map(|size| Span::new(0, size)));
        let input = self.part(&region, &image)?;
        let outputs = self.outputs(&region, &input)?;
        let point = self.point(region, input, &outputs, draw)?;
        let (of_input, _) = self.vjp(&point)?;
        let inside = self.inside(&point.region);
        let direction = inside.iter().map(|&inside| f64::from(u8::from(inside)));
        let direction: Vec<f64> = direction.collect();
        let found = dot(&values(&of_input)?, &direction);
        let slope = self.slope(&point, 0, &direction)?;
        let entry = || "all entries at once, where values tie".to_owned();
        self.compare(&point, 0, entry, found, &slope)
    }

    /// The input and the parameters, with weights for the outputs.
    fn point(
        &self,
        region: LocalRegion,
        input: Tensor,
        outputs: &Tensor,
        draw: &mut Draw,
    ) -> Result<Point> {
        let cotangent = draw.distinct(outputs.elem_count(), &(-1.0..1.0));
        let parameters = self.parameters.iter().cloned();
        Ok(Point {
            region,
            cotangent: Tensor::from_vec(cotangent, outputs.shape(), &Device::Cpu)?,
            tensors: std::iter::once(input).chain(parameters).collect(),
        })
    }

    /// Compares the vector-Jacobian product with slopes.
    fn gradients(&self, point: &Point, draw: &mut Draw) -> Result<()> {
        let (of_input, of_parameters) = self.vjp(point)?;
        let gradients = std::iter::once(of_input).chain(of_parameters);
        for (index, gradient) in gradients.enumerate() {
            let gradient = values(&gradient)?;
            // Padding has no gradient: whatever a layer gives there is not looked at.
            let movable: Vec<usize> = match index {
                0 => {
                    let inside = self.inside(&point.region).into_iter().enumerate();
                    inside
                        .filter_map(|(entry, inside)| inside.then_some(entry))
                        .collect()
                }
                _ => (0..gradient.len()).collect(),
            };
            let mut direction = vec![0.0; gradient.len()];
            for entry in draw.some(&movable) {
                direction[entry] = 1.0;
                let slope = self.slope(point, index, &direction)?;
                direction[entry] = 0.0;
                let place = || format!("entry {:?}", place(entry, point.tensors[index].dims()));
                self.compare(point, index, place, gradient[entry], &slope)?;
            }
            for &entry in &movable {
                direction[entry] = draw.sign();
            }
            let slope = self.slope(point, index, &direction)?;
            let found = dot(&gradient, &direction);
            let entry = || "all entries at once".to_owned();
            self.compare(point, index, entry, found, &slope)?;
        }
        Ok(())
    }

    /// The slope of the outputs' weighted sum as the tensor moves in a direction of steps of 0 and 1.
    fn slope(&self, point: &Point, index: usize, direction: &[f64]) -> Result<Slope> {
        let tensor = &point.tensors[index];
        let at = values(tensor)?;
        let moving = at.iter().zip(direction).filter(|(_, step)| **step != 0.0);
        let largest = moving.map(|(value, _)| value.abs()).fold(1.0, f64::max);
        let step = STEP * largest;
        let moved = |by: f64| -> Result<(f64, f64)> {
            let values = at.iter().zip(direction);
            let values: Vec<f64> = values.map(|(value, step)| value + by * step).collect();
            let mut tensors = point.tensors.clone();
            tensors[index] = Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?;
            self.sum(point, &tensors)
        };
        let ((below, _), (here, size), (above, _)) = (moved(-step)?, moved(0.0)?, moved(step)?);
        Ok(Slope {
            up: (above - here) / step,
            down: (here - below) / step,
            // Each sum is off by some roundings of its largest terms.
            noise: 16.0 * f64::EPSILON * size / step,
        })
    }

    /// The outputs' weighted sum, and that of its terms' sizes.
    fn sum(&self, point: &Point, tensors: &[Tensor]) -> Result<(f64, f64)> {
        let [input, parameters @ ..] = tensors else {
            return Ok((0.0, 0.0));
        };
        let channels = self.layer.output_channels(self.channels);
        let outputs = forward(self.layer, &point.region, parameters, input, channels)?;
        let terms = (values(&outputs)?.into_iter().zip(values(&point.cotangent)?))
            .map(|(output, weight)| output * weight);
        Ok(terms.fold((0.0, 0.0), |(sum, size), term| {
            (sum + term, size + term.abs())
        }))
    }

    fn compare(
        &self,
        point: &Point,
        index: usize,
        entry: impl Fn() -> String,
        found: f64,
        slope: &Slope,
    ) -> Result<()> {
        let (least, most) = (slope.up.min(slope.down), slope.up.max(slope.down));
        let central = f64::midpoint(slope.up, slope.down);
        let tolerance = ABSOLUTE + RELATIVE * central.abs().max(found.abs()) + slope.noise;
        // Beside a kink the slopes to both sides differ by their curvature only.
        let smooth = most - least <= 1e-3 * (1.0 + central.abs());
        let right = if smooth {
            (found - central).abs() <= tolerance
        } else {
            (least - tolerance..=most + tolerance).contains(&found)
        };
        if right {
            return Ok(());
        }
        let tensor = match index {
            0 => "the input".to_owned(),
            _ => {
                let parameters = self.layer.parameters();
                let name = parameters.get(index - 1).map_or("?", |(name, _)| name);
                format!("parameter `{name}`")
            }
        };
        Err(StreamError::Gradient {
            layer: self.layer.name(),
            entry: format!("{tensor}, {}", entry()),
            region: point.region.to_string(),
            expected: central,
            found,
        })
    }

    /// Values do not depend on what else is asked for.
    fn same_values(
        &self,
        region: &LocalRegion,
        part: &Tensor,
        whole: &Tensor,
        size: PerAxis<i64>,
    ) -> Result<()> {
        let (part, whole) = (values(part)?, values(whole)?);
        let (height, width) = (length(region.outputs.rows), length(region.outputs.columns));
        for (index, &found) in part.iter().enumerate() {
            let (channel, row, column) = (
                index / (height * width),
                index / width % height,
                index % width,
            );
            let row = row + index_of(region.outputs.rows.lo);
            let column = column + index_of(region.outputs.columns.lo);
            let at = (channel * index_of(size.rows) + row) * index_of(size.columns) + column;
            let expected = whole[at];
            if (found - expected).abs() > 1e-9 * (1.0 + expected.abs()) {
                return Err(StreamError::RegionDependence {
                    layer: self.layer.name(),
                    entry: vec![channel, row, column],
                    region: region.to_string(),
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }

    /// Outputs, of which each is a number.
    fn outputs(&self, region: &LocalRegion, input: &Tensor) -> Result<Tensor> {
        let channels = self.layer.output_channels(self.channels);
        let outputs = forward(self.layer, region, &self.parameters, input, channels)?;
        self.finite("values", &outputs)?;
        Ok(outputs)
    }

    fn vjp(&self, point: &Point) -> Result<(Tensor, Vec<Tensor>)> {
        let [input, parameters @ ..] = point.tensors.as_slice() else {
            return Err(failed(self.layer)("no input to check".into()));
        };
        let found = vjp(
            self.layer,
            &point.region,
            parameters,
            input,
            &point.cotangent,
        )?;
        for gradient in std::iter::once(&found.0).chain(&found.1) {
            self.finite("gradients", gradient)?;
        }
        Ok(found)
    }

    fn finite(&self, what: &str, tensor: &Tensor) -> Result<()> {
        if values(tensor)?.iter().all(|value| value.is_finite()) {
            return Ok(());
        }
        let range = &self.inputs;
        Err(failed(self.layer)(
            format!(
                "its {what} are not finite for all inputs from {} to {}: check it where it is defined",
                range.start, range.end
            )
            .into(),
        ))
    }

    /// The region for these outputs.
    fn region(&self, input_size: PerAxis<i64>, outputs: Rect) -> LocalRegion {
        LocalRegion::of(&self.rule, outputs, input_size)
    }

    /// The region's inputs, zeros where it leaves the image.
    fn part(&self, region: &LocalRegion, image: &[f64]) -> Result<Tensor> {
        let PerAxis { rows, columns } = region.inputs;
        let mut values = Vec::new();
        for channel in 0..self.channels {
            for row in rows.lo..rows.hi {
                for column in columns.lo..columns.hi {
                    let size = region.input_size;
                    let inside =
                        (0..size.rows).contains(&row) && (0..size.columns).contains(&column);
                    let row = channel * index_of(size.rows) + index_of(row);
                    let at = row * index_of(size.columns) + index_of(column);
                    values.push(if inside { image[at] } else { 0.0 });
                }
            }
        }
        let shape = (1, self.channels, length(rows), length(columns));
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// Of each value of the region's input, whether it lies in the image.
    fn inside(&self, region: &LocalRegion) -> Vec<bool> {
        let PerAxis { rows, columns } = region.inputs;
        let size = region.input_size;
        let of_row = |row: i64| {
            (columns.lo..columns.hi).map(move |column| {
                (0..size.rows).contains(&row) && (0..size.columns).contains(&column)
            })
        };
        let plane: Vec<bool> = (rows.lo..rows.hi).flat_map(of_row).collect();
        plane.repeat(self.channels)
    }

    fn plane(&self, size: PerAxis<i64>) -> usize {
        self.channels * index_of(size.rows) * index_of(size.columns)
    }

    fn output_size(&self, size: PerAxis<i64>) -> PerAxis<i64> {
        let of = |axis: Axis| self.rule[axis].output_size(size[axis]).unwrap_or(0);
        PerAxis::new(of(Axis::Rows), of(Axis::Columns))
    }
}

/// Sizes of an input to check: the smallest that gives an output, and from the smallest with a border, an interior and a
/// border on those of every remainder of the stride, four at most.
fn sizes(rule: &AxisRule) -> Vec<i64> {
    let gives = |outputs: i64| {
        (1..=LARGEST).find(|&size| rule.output_size(size).is_some_and(|size| size >= outputs))
    };
    let (numerator, denominator) = rule.stride();
    let stride = numerator.div_euclid(denominator.max(1)).clamp(1, 4);
    let mut sizes: Vec<i64> = gives(1).into_iter().collect();
    if let Some(first) = gives(3) {
        let further = (first..first + stride)
            .filter(|&size| rule.output_size(size).is_some_and(|size| size > 0));
        sizes.extend(further);
    }
    sizes.dedup();
    sizes
}

/// The whole output, and if there is more than one position its borders and its interior, each by itself.
fn regions(size: PerAxis<i64>) -> impl Iterator<Item = Rect> {
    let parts = |size: i64| {
        let cuts = [0, 1, size - 1, size];
        let spans = cuts.windows(2).map(|ends| Span::new(ends[0], ends[1]));
        spans
            .filter(|span| !span.is_empty() && span.lo >= 0)
            .collect::<Vec<Span>>()
    };
    let whole = size.map(|size| Span::new(0, size));
    let (rows, columns) = (parts(size.rows), parts(size.columns));
    let pairs = rows.into_iter().flat_map(move |rows| {
        let columns = columns.clone().into_iter();
        columns.map(move |columns| PerAxis::new(rows, columns))
    });
    std::iter::once(whole).chain(pairs.filter(move |part| *part != whole))
}

/// Numbers that look drawn by chance, the same each time (SplitMix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap_or(0)
    }

    fn sign(&mut self) -> f64 {
        if self.next().is_multiple_of(2) {
            1.0
        } else {
            -1.0
        }
    }

    fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            let other = self.below(last + 1);
            values.swap(last, other);
        }
    }

    /// Values of a range in random order; any two lie apart, and all from the middle.
    fn distinct(&mut self, count: usize, range: &Range<f64>) -> Vec<f64> {
        let step = (range.end - range.start) / (2 * count.div_ceil(2)) as f64;
        let places = (0..count).map(|place| range.start + (place as f64 + 0.5) * step);
        let mut values: Vec<f64> = places.collect();
        self.shuffle(&mut values);
        values
    }

    /// Values out of few, the middle of the range among them.
    fn levels(&mut self, count: usize, range: &Range<f64>) -> Vec<f64> {
        let step = (range.end - range.start) / LEVELS as f64;
        let level = |place: usize| match 2 * place + 1 {
            LEVELS => f64::midpoint(range.start, range.end),
            _ => range.start + (place as f64 + 0.5) * step,
        };
        (0..count).map(|_| level(self.below(LEVELS))).collect()
    }

    /// Some of the entries, all where they are few.
    fn some(&mut self, entries: &[usize]) -> Vec<usize> {
        let mut drawn = entries.to_vec();
        if drawn.len() > ENTRIES {
            self.shuffle(&mut drawn);
            drawn.truncate(ENTRIES);
        }
        drawn
    }
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The indices of an entry of a tensor.
fn place(mut entry: usize, dims: &[usize]) -> Vec<usize> {
    let mut place = vec![0; dims.len()];
    for (index, &size) in place.iter_mut().zip(dims).rev() {
        *index = entry % size.max(1);
        entry /= size.max(1);
    }
    place
}

/// An index that is not negative.
fn index_of(position: i64) -> usize {
    usize::try_from(position).unwrap_or(0)
}

#[cfg(test)]
mod tests;
