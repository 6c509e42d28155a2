//! Convolution weights in the order in which the micro-kernels read them.

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::element::sealed::{lanes, widest_panel};
use crate::instructions::{Work, dispatch, run_part};
use crate::memory::zeros;
use crate::parallel::parallel_for;
use crate::view::check_length;
use crate::{Convolution, Element, KernelError, Storage, scatter, winograd};

/// How packed weights lie in memory: `[group][panel][kernel row][kernel column][step][panel width][term]`, where a panel is
/// up to four registers of output values wide, and the terms of a step are values of the depth that are summed at once. The last panel
/// of a group and the last step of a tap are filled up with zeros. For Winograd's convolution rows and columns are those of the
/// transformed kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) groups: usize,
    pub(crate) taps: [usize; 2],
    /// Values summed over at one tap.
    pub(crate) depth: usize,
    /// Values computed at one position, for each group.
    pub(crate) width: usize,
    /// True where each computed value has its own summand (depthwise), and `depth` is 1.
    pub(crate) per_channel: bool,
    /// Terms of a step.
    terms: usize,
    lanes: usize,
    vectors: usize,
    pub(crate) panels: usize,
}

/// One panel of [`Layout`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    pub(crate) group: usize,
    /// Registers.
    pub(crate) vectors: usize,
    /// First value of the group that the panel computes.
    pub(crate) first: usize,
    /// Values that it computes; the rest of its registers is zeros.
    pub(crate) width: usize,
    /// Where its weights start.
    pub(crate) offset: usize,
}

impl Layout {
    fn new<E: Storage>(convolution: &Convolution, depth: usize, width: usize) -> Self {
        let per_channel = convolution.is_depthwise();
        let (groups, depth, width) = if per_channel {
            (1, 1, convolution.in_channels)
        } else {
            (convolution.groups, depth, width)
        };
        let taps = if convolution.is_winograd() {
            winograd::WEIGHTS
        } else {
            convolution.window.kernel
        };
        Self::of::<E>(groups, taps, depth, width, per_channel)
    }

    /// For a data gradient that is scattered: the products of all taps and inputs at once.
    fn scattered<E: Storage>(convolution: &Convolution) -> Self {
        let width = convolution.window.taps() * convolution.in_channels;
        Self::of::<E>(1, [1, 1], convolution.out_channels, width, false)
    }

    fn of<E: Storage>(
        groups: usize,
        taps: [usize; 2],
        depth: usize,
        width: usize,
        per_channel: bool,
    ) -> Self {
        let (lanes, widest) = dispatch(RegisterShape::<E>::new());
        let vectors = width.div_ceil(lanes);
        let panels = vectors.div_ceil(widest);
        Self {
            groups,
            taps,
            depth,
            width,
            per_channel,
            terms: if per_channel { 1 } else { E::TERMS },
            lanes,
            vectors,
            panels,
        }
    }

    fn len(&self) -> Result<usize, KernelError> {
        [
            self.groups,
            self.vectors,
            self.lanes,
            self.taps[0],
            self.taps[1],
            self.terms,
        ]
        .into_iter()
        .try_fold(self.steps(), usize::checked_mul)
        .filter(|&count| isize::try_from(count).is_ok())
        .ok_or(KernelError::Overflow {
            what: "packed weights",
        })
    }

    /// Steps of the sum at one tap.
    #[inline(always)]
    pub(crate) fn steps(&self) -> usize {
        self.depth.div_ceil(self.terms)
    }

    /// Values of a panel at one step.
    fn row(&self, panel: Panel) -> usize {
        panel.vectors * self.lanes * self.terms
    }

    /// Panels of all groups.
    pub(crate) fn panel_count(&self) -> usize {
        self.groups * self.panels
    }

    pub(crate) fn panel(&self, index: usize) -> Panel {
        let (group, panel) = (index / self.panels, index % self.panels);
        let first_vector = panel * self.vectors / self.panels;
        let vectors = (panel + 1) * self.vectors / self.panels - first_vector;
        let first = first_vector * self.lanes;
        Panel {
            group,
            vectors,
            first,
            width: (vectors * self.lanes).min(self.width - first),
            offset: (group * self.vectors + first_vector)
                * self.lanes
                * self.taps[0]
                * self.taps[1]
                * self.steps()
                * self.terms,
        }
    }
}

struct RegisterShape<E>(PhantomData<E>);

impl<E> RegisterShape<E> {
    fn new() -> Self {
        Self(PhantomData)
    }
}

impl<E: Storage> WithSimd for RegisterShape<E> {
    type Output = (usize, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        (lanes::<S, E>(), widest_panel::<S>())
    }
}

/// Bytes to which weights are aligned, so that no register straddles two cache lines.
const ALIGNMENT: usize = 64;

/// Packed weights, to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedView<'a, E> {
    pub(crate) layout: Layout,
    pub(crate) values: &'a [E],
}

#[derive(Debug, Clone)]
pub(crate) struct PackedWeights<E> {
    pub(crate) convolution: Convolution,
    pub(crate) layout: Layout,
    data: Vec<E>,
    start: usize,
}

impl<E: Storage> PackedWeights<E> {
    fn allocated(layout: &Layout) -> Result<usize, KernelError> {
        Ok(layout.len()?.saturating_add(ALIGNMENT / size_of::<E>()))
    }

    fn zeros(convolution: &Convolution, layout: Layout) -> Result<Self, KernelError> {
        let data: Vec<E> = zeros(Self::allocated(&layout)?);
        let start = data
            .as_ptr()
            .align_offset(ALIGNMENT)
            .min(ALIGNMENT / size_of::<E>());
        Ok(Self {
            convolution: *convolution,
            layout,
            data,
            start,
        })
    }

    pub(crate) fn view(&self) -> PackedView<'_, E> {
        PackedView {
            layout: self.layout,
            values: &self.data[self.start..],
        }
    }

    /// The values of a panel at one tap and depth.
    fn row(
        &self,
        panel: Panel,
        [ky, kx]: [usize; 2],
        depth: usize,
    ) -> impl Iterator<Item = f64> + use<'_, E> {
        let PackedView { layout, values } = self.view();
        let step = (ky * layout.taps[1] + kx) * layout.steps() + depth / layout.terms;
        let first = panel.offset + step * layout.row(panel) + depth % layout.terms;
        let row = values[first..].iter().step_by(layout.terms);
        row.take(panel.width).map(|value| value.widen().to_f64())
    }

    /// The panel of a group that holds a value: the inverse of how [`Layout::panel`] cuts them.
    fn panel_of(&self, group: usize, value: usize) -> Panel {
        let layout = self.layout;
        let vector = value / layout.lanes;
        let index = ((vector + 1) * layout.panels - 1) / layout.vectors;
        layout.panel(group * layout.panels + index)
    }

    /// Sets the weight of `(group, tap, depth, value)` to `weight(..)` everywhere, transformed where that is called for.
    fn fill_taps(&mut self, weight: impl Fn(usize, [usize; 2], usize, usize) -> E::Compute + Sync) {
        if self.convolution.is_winograd() {
            let weight = &weight;
            self.for_each_panel(|&layout, panel, values| {
                let work = Transformed {
                    layout,
                    panel,
                    weight,
                };
                run_part(&work, 0, values);
            });
        } else {
            self.for_each_panel(|layout, panel, values| fill(layout, panel, values, &weight));
        }
    }

    /// Calls `work(layout, panel, its values)` for every panel.
    fn for_each_panel(&mut self, work: impl Fn(&Layout, Panel, &mut [E]) + Sync) {
        let layout = self.layout;
        let mut rest = &mut self.data[self.start..];
        let mut panels = Vec::with_capacity(layout.panel_count());
        for index in 0..layout.panel_count() {
            let panel = layout.panel(index);
            let length = layout.row(panel) * layout.taps[0] * layout.taps[1] * layout.steps();
            let (values, after) = std::mem::take(&mut rest).split_at_mut(length);
            panels.push((panel, values));
            rest = after;
        }
        parallel_for(panels.into_par_iter(), |(panel, values)| {
            work(&layout, panel, values);
        });
    }
}

fn fill<E: Storage>(
    layout: &Layout,
    panel: Panel,
    values: &mut [E],
    weight: impl Fn(usize, [usize; 2], usize, usize) -> E::Compute,
) {
    let mut rows = values.chunks_exact_mut(layout.row(panel));
    for ky in 0..layout.taps[0] {
        for kx in 0..layout.taps[1] {
            for (step, row) in rows.by_ref().take(layout.steps()).enumerate() {
                let first = step * layout.terms;
                for depth in first..layout.depth.min(first + layout.terms) {
                    let slots = row[depth - first..].iter_mut().step_by(layout.terms);
                    for (value, slot) in slots.take(panel.width).enumerate() {
                        let value = panel.first + value;
                        *slot = E::narrow(weight(panel.group, [ky, kx], depth, value));
                    }
                }
            }
        }
    }
}

/// Weights that are transformed side by side.
const SIDE_BY_SIDE: usize = 8;

/// Fills a panel with transformed weights.
struct Transformed<'a, F> {
    layout: Layout,
    panel: Panel,
    weight: &'a F,
}

impl<E: Storage, F: Fn(usize, [usize; 2], usize, usize) -> E::Compute + Sync> Work<E>
    for Transformed<'_, F>
{
    #[inline(always)]
    fn run<S: Simd>(&self, _: S, _: usize, values: &mut [E]) {
        fill_transformed(&self.layout, self.panel, values, self.weight);
    }
}

#[inline(always)]
fn fill_transformed<E: Storage>(
    layout: &Layout,
    panel: Panel,
    values: &mut [E],
    weight: impl Fn(usize, [usize; 2], usize, usize) -> E::Compute,
) {
    let width = panel.vectors * layout.lanes * E::TERMS;
    let columns = layout.taps[1];
    for depth in 0..layout.depth {
        for first in (0..panel.width).step_by(SIDE_BY_SIDE) {
            let count = SIDE_BY_SIDE.min(panel.width - first);
            let mut taps = [[[0.0; SIDE_BY_SIDE]; 3]; 3];
            for (row, taps) in taps.iter_mut().enumerate() {
                for (column, taps) in taps.iter_mut().enumerate() {
                    for (value, tap) in taps.iter_mut().take(count).enumerate() {
                        let value = panel.first + first + value;
                        *tap = weight(panel.group, [row, column], depth, value).to_f64();
                    }
                }
            }
            let products = winograd::transform_weights(&taps);
            for (row, products) in products.iter().enumerate() {
                for (column, products) in products.iter().enumerate() {
                    let step = (row * columns + column) * layout.steps() + depth / E::TERMS;
                    let place = step * width + first * E::TERMS + depth % E::TERMS;
                    let slots = values[place..].iter_mut().step_by(E::TERMS).take(count);
                    for (slot, &product) in slots.zip(products) {
                        *slot = E::narrow(E::Compute::from_f64(product));
                    }
                }
            }
        }
    }
}

fn check_weights(convolution: &Convolution, found: usize) -> Result<(), KernelError> {
    check_length("weights", convolution.weight_count()?, found)
}

/// Weights packed for [`conv_forward`](crate::conv_forward).
#[derive(Debug, Clone)]
pub struct ForwardWeights<E>(pub(crate) PackedWeights<E>);

impl<E: Storage> ForwardWeights<E> {
    fn layout(convolution: &Convolution) -> Result<Layout, KernelError> {
        convolution.weight_count()?;
        Ok(Layout::new::<E>(
            convolution,
            convolution.in_channels / convolution.groups,
            convolution.out_channels / convolution.groups,
        ))
    }

    /// Packs weights given as `[out][in / groups][kernel rows][kernel columns]`.
    ///
    /// # Errors
    /// [`KernelError`] where the convolution is malformed or `weights` has another length.
    pub fn pack(convolution: &Convolution, weights: &[E::Compute]) -> Result<Self, KernelError> {
        let mut packed = Self(PackedWeights::zeros(
            convolution,
            Self::layout(convolution)?,
        )?);
        packed.repack(weights)?;
        Ok(packed)
    }

    /// Packs other weights of the same convolution into the same memory.
    ///
    /// # Errors
    /// [`KernelError::Length`] where `weights` has another length.
    pub fn repack(&mut self, weights: &[E::Compute]) -> Result<(), KernelError> {
        let convolution = self.0.convolution;
        check_weights(&convolution, weights.len())?;
        let [kernel_rows, kernel_columns] = convolution.window.kernel;
        let group_in = convolution.in_channels / convolution.groups;
        let group_out = convolution.out_channels / convolution.groups;
        self.0.fill_taps(
            #[inline(always)]
            |group, [ky, kx], input, output| {
                let row = (group * group_out + output) * group_in + input;
                weights[(row * kernel_rows + ky) * kernel_columns + kx]
            },
        );
        Ok(())
    }

    /// Values that the packed weights of a convolution occupy on this machine.
    ///
    /// # Errors
    /// [`KernelError`] where the convolution is malformed.
    pub fn packed_len(convolution: &Convolution) -> Result<usize, KernelError> {
        PackedWeights::<E>::allocated(&Self::layout(convolution)?)
    }
}

/// Weights packed for [`conv_data_gradient`](crate::conv_data_gradient): transposed, and with the taps in reverse order or, of few
/// input channels, all side by side.
#[derive(Debug, Clone)]
pub struct DataGradientWeights<E>(pub(crate) PackedWeights<E>);

impl<E: Storage> DataGradientWeights<E> {
    fn layout(convolution: &Convolution) -> Result<Layout, KernelError> {
        convolution.weight_count()?;
        if scatter::applies::<E>(convolution) {
            return Ok(Layout::scattered::<E>(convolution));
        }
        Ok(Layout::new::<E>(
            convolution,
            convolution.out_channels / convolution.groups,
            convolution.in_channels / convolution.groups,
        ))
    }

    /// Packs weights given as `[out][in / groups][kernel rows][kernel columns]`.
    ///
    /// # Errors
    /// [`KernelError`] where the convolution is malformed or `weights` has another length.
    pub fn pack(convolution: &Convolution, weights: &[E::Compute]) -> Result<Self, KernelError> {
        let mut packed = Self(PackedWeights::zeros(
            convolution,
            Self::layout(convolution)?,
        )?);
        packed.repack(weights)?;
        Ok(packed)
    }

    /// Packs other weights of the same convolution into the same memory.
    ///
    /// # Errors
    /// [`KernelError::Length`] where `weights` has another length.
    pub fn repack(&mut self, weights: &[E::Compute]) -> Result<(), KernelError> {
        let convolution = self.0.convolution;
        check_weights(&convolution, weights.len())?;
        let [kernel_rows, kernel_columns] = convolution.window.kernel;
        let group_in = convolution.in_channels / convolution.groups;
        let group_out = convolution.out_channels / convolution.groups;
        if scatter::applies::<E>(&convolution) {
            let taps = convolution.window.taps();
            self.0.fill_taps(|_, _, output, value| {
                let (tap, input) = (value / group_in, value % group_in);
                weights[(output * group_in + input) * taps + tap]
            });
            return Ok(());
        }
        let depthwise = convolution.is_depthwise();
        self.0.fill_taps(
            #[inline(always)]
            |group, [ky, kx], output, input| {
                let row = if depthwise {
                    input
                } else {
                    (group * group_out + output) * group_in + input
                };
                let (ky, kx) = (kernel_rows - 1 - ky, kernel_columns - 1 - kx);
                weights[(row * kernel_rows + ky) * kernel_columns + kx]
            },
        );
        Ok(())
    }

    /// Writes the weights `[in / groups][kernel rows][kernel columns]` of one output channel, in double precision, into
    /// `weights`: as they were packed, but for the rounding of Winograd's transform where that is used.
    ///
    /// # Errors
    /// [`KernelError`] where there is no such channel, or `weights` has another length.
    ///
    /// ```
    /// use stream_grad_kernels::*;
    ///
    /// let convolution = Convolution::new(Window::new([1, 2]), 1, 2);
    /// let packed = DataGradientWeights::<f32>::pack(&convolution, &[1.0, 2.0, 3.0, 4.0])?;
    /// let mut filter = [0.0; 2];
    /// packed.unpack_filter(1, &mut filter)?;
    /// assert_eq!(filter, [3.0, 4.0]);
    /// # Ok::<(), KernelError>(())
    /// ```
    pub fn unpack_filter(&self, output: usize, weights: &mut [f64]) -> Result<(), KernelError> {
        let Convolution {
            in_channels,
            out_channels,
            groups,
            window,
            ..
        } = self.0.convolution;
        if output >= out_channels {
            return Err(KernelError::NoSuchChannel {
                what: "output channel",
                found: output,
                count: out_channels,
            });
        }
        let [rows, columns] = window.kernel;
        let (group_in, group_out) = (in_channels / groups, out_channels / groups);
        check_length("filter", group_in * rows * columns, weights.len())?;
        let taps = rows * columns;
        // Taps are packed in reverse.
        let tap = |place: usize| [rows - 1 - place / columns, columns - 1 - place % columns];
        let layout = self.0.layout;
        if layout.per_channel {
            let panel = self.0.panel_of(0, output);
            for (place, weight) in weights.iter_mut().enumerate() {
                let mut row = self.0.row(panel, tap(place), 0);
                *weight = row.nth(output - panel.first).unwrap_or_default();
            }
            return Ok(());
        }
        if scatter::applies::<E>(&self.0.convolution) {
            for index in 0..layout.panels {
                let panel = layout.panel(index);
                for (value, packed) in self.0.row(panel, [0, 0], output).enumerate() {
                    let value = panel.first + value;
                    weights[value % group_in * taps + value / group_in] = packed;
                }
            }
            return Ok(());
        }
        let (group, depth) = (output / group_out, output % group_out);
        for index in 0..layout.panels {
            let panel = layout.panel(group * layout.panels + index);
            for place in 0..taps {
                let row = |tap| self.0.row(panel, tap, depth);
                let to = &mut weights[panel.first * taps + place..];
                if self.0.convolution.is_winograd() {
                    winograd::original_weights(tap(place), row, to, taps);
                } else {
                    for (weight, packed) in to.iter_mut().step_by(taps).zip(row(tap(place))) {
                        *weight = packed;
                    }
                }
            }
        }
        Ok(())
    }

    /// Values that the packed weights of a convolution occupy on this machine.
    ///
    /// # Errors
    /// [`KernelError`] where the convolution is malformed.
    pub fn packed_len(convolution: &Convolution) -> Result<usize, KernelError> {
        PackedWeights::<E>::allocated(&Self::layout(convolution)?)
    }
}
