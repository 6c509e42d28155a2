//! The convolution engine: every target position gathers its taps from a source image.
//!
//! Forward pass and data gradient are the same computation: a target position sums, over its taps, source values times
//! weights. A micro-kernel holds a group of target positions times a panel of values in registers; no im2col matrix and
//! no padded copy is made. Taps that fall outside the source read a row of zeros, so that each value is the same
//! sequence of floating-point operations wherever its group lies.

pub(crate) mod depthwise;
pub(crate) mod product;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use product::{Terms, accumulate};

#[cfg(target_arch = "x86_64")]
use crate::bf16;
use crate::bounds::holds;
use crate::element::sealed::{
    Family, Operation, Register, Stored, Vectors, for_each_number, lanes, load_some, store_some,
    zero,
};
#[cfg(target_arch = "x86_64")]
use crate::element::storage::native::{NativeBf16, native, native_mut};
use crate::parallel::parallel_for;
use crate::shared::Shared;
use crate::stack::Aligned;
use crate::weights::{PackedView, Panel};
use crate::{Activation, Existing, Storage};

/// Longest sum held in registers before it is added to the target: bounds the cache that a panel of weights takes, and
/// the error of a long sum. Of numbers that are rounded when they are stored, sums are not cut.
const LONGEST_SUM: usize = 512;

/// Target positions of one task; a multiple of every group size.
const CHUNK_PIXELS: usize = 240;

/// A task takes as many panels as make this many multiply-adds, so that small convolutions are not all scheduling.
const TASK_PRODUCTS: usize = 1 << 21;

/// Taps outside the source read from here.
static ZEROS: [f64; 512] = [0.0; 512];

/// [`ZEROS`] as numbers of any kind.
#[inline(always)]
pub(crate) fn zeros<E>() -> *const E {
    ZEROS.as_ptr().cast()
}

/// One axis of a gather. Target position `i` lies at `target_first + i * target_step`; its tap `t` reads source position
/// `source_first + i * source_step + t * tap_step` with weight `weight_first + t * weight_step`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    pub(crate) target_first: usize,
    pub(crate) target_step: usize,
    pub(crate) targets: usize,
    pub(crate) source_first: isize,
    pub(crate) source_step: isize,
    pub(crate) taps: usize,
    pub(crate) tap_step: isize,
    pub(crate) weight_first: usize,
    pub(crate) weight_step: usize,
    /// Source positions that exist: `low..high`.
    pub(crate) low: isize,
    pub(crate) high: isize,
}

impl Axis {
    #[expect(
        clippy::cast_possible_wrap,
        reason = "an index below a count that was checked"
    )]
    #[inline(always)]
    fn source(&self, target: usize) -> isize {
        self.source_first + target as isize * self.source_step
    }

    #[expect(
        clippy::cast_possible_wrap,
        reason = "an index below a count that was checked"
    )]
    #[inline(always)]
    fn tap(&self, tap: usize) -> isize {
        tap as isize * self.tap_step
    }

    #[inline(always)]
    fn holds(&self, source: isize) -> bool {
        source >= self.low && source < self.high
    }

    #[inline(always)]
    fn holds_all(&self, source: isize) -> bool {
        self.holds(source) && self.holds(source + self.tap(self.taps - 1))
    }
}

/// Values added after the sum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addend<'a, E: Storage> {
    /// From the value for the first target position on; channels are contiguous.
    pub(crate) data: &'a [E],
    pub(crate) row_pitch: usize,
    pub(crate) pixel_pitch: usize,
}

/// A gather over images whose channels are contiguous.
#[derive(Debug)]
pub(crate) struct Gather<'a, E: Storage> {
    pub(crate) rows: Axis,
    pub(crate) columns: Axis,
    pub(crate) source: &'a [E],
    /// Pixels from one row to the next.
    pub(crate) source_pitch: usize,
    pub(crate) source_channels: usize,
    pub(crate) target: &'a mut [E],
    pub(crate) target_pitch: usize,
    pub(crate) target_channels: usize,
    pub(crate) weights: PackedView<'a, E>,
    pub(crate) existing: Existing,
    pub(crate) bias: Option<&'a [E::Compute]>,
    pub(crate) residual: Option<Addend<'a, E>>,
    pub(crate) activation: Activation,
}

/// Gathers by the definition of a convolution.
pub(crate) struct Direct;

impl Operation for Direct {
    type Operands<'a, E: Storage> = Gather<'a, E>;

    fn run<E: Storage>(gather: Gather<'_, E>) {
        gather.run();
    }

    #[cfg(target_arch = "x86_64")]
    fn native<'a>(gather: Self::Operands<'a, bf16>) -> Self::Operands<'a, NativeBf16> {
        gather.native()
    }
}

#[cfg(target_arch = "x86_64")]
impl<'a> Gather<'a, bf16> {
    /// The same on numbers for which the processor has instructions.
    pub(crate) fn native(self) -> Gather<'a, NativeBf16> {
        Gather {
            rows: self.rows,
            columns: self.columns,
            source: native(self.source),
            source_pitch: self.source_pitch,
            source_channels: self.source_channels,
            target: native_mut(self.target),
            target_pitch: self.target_pitch,
            target_channels: self.target_channels,
            weights: PackedView {
                layout: self.weights.layout,
                values: native(self.weights.values),
            },
            existing: self.existing,
            bias: self.bias,
            residual: self.residual.map(|residual| Addend {
                data: native(residual.data),
                row_pitch: residual.row_pitch,
                pixel_pitch: residual.pixel_pitch,
            }),
            activation: self.activation,
        }
    }
}

impl<E: Storage> Gather<'_, E> {
    /// Runs the gather in the current rayon pool. The work is cut by its geometry alone.
    fn run(mut self) {
        let pixels = self.rows.targets * self.columns.targets;
        let taps = self.rows.taps * self.columns.taps;
        if pixels == 0 || taps == 0 {
            return;
        }
        let layout = self.weights.layout;
        let panels = layout.panel_count();
        let chunks = pixels.div_ceil(CHUNK_PIXELS);
        let per_panel = CHUNK_PIXELS
            .saturating_mul(taps.saturating_mul(layout.depth))
            .saturating_mul(layout.width.div_ceil(layout.panels));
        let panels_per_task = (TASK_PRODUCTS / per_panel.max(1)).clamp(1, panels);
        let panel_tasks = panels.div_ceil(panels_per_task);
        let shared = Shared::new(std::mem::take(&mut self.target));
        let shared = &shared;
        let gather = &self;
        if layout.per_channel {
            return gather.run_depthwise(shared);
        }
        parallel_for((0..chunks * panel_tasks).into_par_iter(), |task| {
            let (chunk, panel_task) = (task / panel_tasks, task % panel_tasks);
            let first_panel = panel_task * panels_per_task;
            E::run::<Gathering>(Task {
                gather,
                target: shared,
                pixels: chunk * CHUNK_PIXELS..((chunk + 1) * CHUNK_PIXELS).min(pixels),
                panels: first_panel..(first_panel + panels_per_task).min(panels),
            });
        });
    }
}

impl<E: Storage> Gather<'_, E> {
    /// Where the first channel of a target lies in the target image.
    #[inline(always)]
    pub(crate) fn target_offset(&self, [row, column]: [usize; 2]) -> usize {
        let row = self.rows.target_first + row * self.rows.target_step;
        let column = self.columns.target_first + column * self.columns.target_step;
        (row * self.target_pitch + column) * self.target_channels
    }

    /// What is stored for a sum: `count` channels from `channel` on of one target.
    #[inline(always)]
    pub(crate) fn finish<S: Simd>(
        &self,
        simd: S,
        [row, column]: [usize; 2],
        channel: usize,
        count: usize,
        sum: Register<E, S>,
    ) -> Register<E, S> {
        let mut value = sum;
        if let Some(bias) = self.bias {
            value = add_values::<S, E::Compute>(simd, value, &bias[channel..][..count]);
        }
        if let Some(residual) = &self.residual {
            let at = row * residual.row_pitch + column * residual.pixel_pitch + channel;
            value = add_values::<S, E>(simd, value, &residual.data[at..][..count]);
        }
        self.activation
            .apply_to_vector::<S, E::Compute>(simd, value)
    }
}

/// Adds the first lanes' worth of values.
#[inline(always)]
fn add_values<S: Simd, E: Storage>(simd: S, value: Register<E, S>, more: &[E]) -> Register<E, S> {
    #[expect(unsafe_code, reason = "vectors are loaded by pointer")]
    // SAFETY: the slice holds as many values as are loaded.
    let more = unsafe { load_some::<S, E>(simd, more.as_ptr(), more.len()) };
    E::Compute::vector_add(simd, value, more)
}

/// Some positions times some panels: no two tasks share both.
pub(crate) struct Task<'a, E: Storage> {
    gather: &'a Gather<'a, E>,
    target: &'a Shared<'a, E>,
    pixels: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
}

/// The family of [`Task`].
struct Gathering;

impl Family for Gathering {
    type Task<'a, E: Storage> = Task<'a, E>;

    for_each_number!(|task, Number| Number::dispatch(task));
}

impl<E: Storage> WithSimd for Task<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for index in self.panels.clone() {
            let panel = self.gather.weights.layout.panel(index);
            self.panel_of(simd, panel);
        }
    }
}

impl<E: Storage> Task<'_, E> {
    #[inline(always)]
    fn panel_of<S: Simd>(&self, simd: S, panel: Panel) {
        // Accumulators, one panel of weights and one source value fit in the registers.
        if S::REGISTER_COUNT >= 32 {
            match panel.vectors {
                1 => self.run::<S, 1, 12>(simd, panel),
                2 => self.run::<S, 2, 10>(simd, panel),
                3 => self.run::<S, 3, 8>(simd, panel),
                _ => self.run::<S, 4, 6>(simd, panel),
            }
        } else {
            match panel.vectors {
                1 => self.run::<S, 1, 12>(simd, panel),
                _ => self.run::<S, 2, 6>(simd, panel),
            }
        }
    }

    #[inline(always)]
    fn run<S: Simd, const VECTORS: usize, const PIXELS: usize>(&self, simd: S, panel: Panel) {
        let gather = self.gather;
        let terms = gather.rows.taps * gather.columns.taps * gather.weights.layout.steps();
        let blocks = if size_of::<E>() == size_of::<E::Compute>() {
            terms.div_ceil(LONGEST_SUM)
        } else {
            1
        };
        for block in 0..blocks {
            let step = Step {
                gather,
                target: self.target,
                panel,
                steps: block * terms / blocks..(block + 1) * terms / blocks,
                replace: gather.existing == Existing::Replace && block == 0,
                finish: block + 1 == blocks,
            };
            let mut pixel = self.pixels.start;
            while pixel < self.pixels.end {
                let count = PIXELS.min(self.pixels.end - pixel);
                let group = Group::<PIXELS>::new(gather, pixel, count);
                let mut sums = [[zero::<S, E>(simd); VECTORS]; PIXELS];
                step.accumulate::<S, VECTORS, PIXELS>(simd, &group, &mut sums);
                // Apart from the sums, which so stay in registers from one row of taps to the next.
                let stored = Aligned(sums);
                step.store::<S, VECTORS, PIXELS>(simd, &group, &stored.0);
                pixel += PIXELS;
            }
        }
    }
}

/// Up to `PIXELS` target positions; the places after `count` repeat the last one.
struct Group<const PIXELS: usize> {
    count: usize,
    /// Index along the target's rows and columns.
    targets: [[usize; 2]; PIXELS],
    /// Source row and column of the first tap.
    sources: [[isize; 2]; PIXELS],
    /// True where every tap of every position exists.
    interior: bool,
}

impl<const PIXELS: usize> Group<PIXELS> {
    #[inline(always)]
    fn new<E: Storage>(gather: &Gather<'_, E>, first: usize, count: usize) -> Self {
        let width = gather.columns.targets;
        let (mut row, mut column) = (first / width, first % width);
        let mut group = Self {
            count,
            targets: [[0; 2]; PIXELS],
            sources: [[0; 2]; PIXELS],
            interior: true,
        };
        for place in 0..PIXELS {
            let source = [gather.rows.source(row), gather.columns.source(column)];
            group.targets[place] = [row, column];
            group.sources[place] = source;
            group.interior &=
                gather.rows.holds_all(source[0]) && gather.columns.holds_all(source[1]);
            if place + 1 < count {
                column += 1;
                if column == width {
                    (row, column) = (row + 1, 0);
                }
            }
        }
        group
    }
}

/// One block of steps of one panel.
struct Step<'a, E: Storage> {
    gather: &'a Gather<'a, E>,
    target: &'a Shared<'a, E>,
    panel: Panel,
    /// Steps of the sum, counted over tap rows, tap columns and depth.
    steps: std::ops::Range<usize>,
    replace: bool,
    finish: bool,
}

impl<E: Storage> Step<'_, E> {
    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "offsets inside slices fit isize")]
    fn source_offset(&self, row: isize, column: isize) -> isize {
        let gather = self.gather;
        row.wrapping_mul(gather.source_pitch as isize)
            .wrapping_add(column)
            .wrapping_mul(gather.source_channels as isize)
    }

    /// First channel that the panel's group reads.
    #[inline(always)]
    fn source_channel(&self) -> usize {
        self.panel.group * self.gather.weights.layout.depth
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "offsets inside slices fit isize")]
    fn accumulate<S: Simd, const VECTORS: usize, const PIXELS: usize>(
        &self,
        simd: S,
        group: &Group<PIXELS>,
        sums: &mut [[Register<E, S>; VECTORS]; PIXELS],
    ) {
        let gather = self.gather;
        let layout = &gather.weights.layout;
        let (rows, columns) = (&gather.rows, &gather.columns);
        let depth = layout.depth;
        let steps = layout.steps();
        let row_steps = columns.taps * steps;
        let width = VECTORS * lanes::<S, E>() * E::TERMS;
        let source = gather.source.as_ptr().wrapping_add(self.source_channel());
        let weights = &gather.weights.values[self.panel.offset..];
        let zeros = zeros();
        let longest_zeros = size_of_val(&ZEROS) / size_of::<E>();
        // The taps of a row follow each other in memory, in the source and in the weights.
        let contiguous =
            columns.tap_step == 1 && columns.weight_step == 1 && gather.source_channels == depth;
        let merged = group.interior && contiguous;

        let mut origins = [source; PIXELS];
        for (origin, place) in origins.iter_mut().zip(&group.sources) {
            *origin = source.wrapping_offset(self.source_offset(place[0], place[1]));
        }
        let mut step = self.steps.start;
        while step < self.steps.end {
            let (tap_row, in_row) = (step / row_steps, step % row_steps);
            let (tap_column, first) = (in_row / steps, in_row % steps);
            let mut length = if merged {
                row_steps - in_row
            } else {
                steps - first
            };
            length = length.min(self.steps.end - step);
            let tap = [rows.tap(tap_row), columns.tap(tap_column)];
            let offset = self
                .source_offset(tap[0], tap[1])
                .wrapping_add((first * E::TERMS) as isize);
            let mut places = [zeros; PIXELS];
            if group.interior {
                for (place, origin) in places.iter_mut().zip(&origins) {
                    *place = origin.wrapping_offset(offset);
                }
            } else {
                length = length.min(longest_zeros / E::TERMS);
                for ((place, origin), at) in places.iter_mut().zip(&origins).zip(&group.sources) {
                    if rows.holds(at[0] + tap[0]) && columns.holds(at[1] + tap[1]) {
                        *place = origin.wrapping_offset(offset);
                    }
                }
            }
            let weight = (rows.weight_first + tap_row * rows.weight_step) * layout.taps[1]
                + columns.weight_first
                + tap_column * columns.weight_step;
            let weight = &weights[(weight * steps + first) * width..][..length * width];
            let terms = if depth.is_multiple_of(E::TERMS) {
                Terms::of_tap(weight.as_ptr(), length * E::TERMS)
            } else if length == row_steps {
                Terms {
                    taps: columns.taps,
                    ..Terms::of_tap(weight.as_ptr(), depth)
                }
            } else {
                let count = (length * E::TERMS).min(depth - first * E::TERMS);
                Terms::of_tap(weight.as_ptr(), count)
            };
            debug_assert!(places.iter().all(|&place| {
                let count = terms.count();
                holds(gather.source, place, count) || place == zeros && count <= longest_zeros
            }));
            #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
            // SAFETY: places are those of taps that exist, as far as the terms go, or zeros; the slice of weights covers
            // all terms.
            unsafe {
                accumulate(simd, sums, &places, &terms);
            }
            step += length;
        }
    }

    #[inline(always)]
    fn store<S: Simd, const VECTORS: usize, const PIXELS: usize>(
        &self,
        simd: S,
        group: &Group<PIXELS>,
        sums: &[[Register<E, S>; VECTORS]; PIXELS],
    ) {
        let gather = self.gather;
        let lanes = lanes::<S, E>();
        let channel = self.panel.group * gather.weights.layout.width + self.panel.first;
        for (&place, sums) in group.targets.iter().zip(sums).take(group.count) {
            let target = gather.target_offset(place) + channel;
            for (vector, &sum) in sums.iter().enumerate() {
                let first = vector * lanes;
                let count = lanes.min(self.panel.width.saturating_sub(first));
                #[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
                // SAFETY: the target position's channels of the panel lie inside the target image, and belong to this
                // task alone.
                unsafe {
                    let to = self.target.place(target + first, count);
                    let mut value = sum;
                    if !self.replace {
                        value =
                            E::Compute::vector_add(simd, load_some::<S, E>(simd, to, count), value);
                    }
                    if self.finish {
                        value = gather.finish(simd, place, channel + first, count, value);
                    }
                    store_some::<S, E>(simd, to, count, value);
                }
            }
        }
    }
}
