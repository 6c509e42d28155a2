//! Dense weight gradients: a task packs the inputs under the windows of a few positions and their cotangents side by side, and
//! multiplies them for all taps.
//!
//! In place, the inputs of neighbouring positions lie a power of two apart and fall on a few sets of the cache; and each input
//! that is fetched serves all taps that read it.

mod pack;

use std::ops::Range;

use pulp::Simd;

use pack::PackedAxis;

use super::cut::{
    Blocked, Cut, Destination, Place, Summed, Target, Task, columns, scratch_for, slots,
};
use super::operands::Operands;
use super::product::{Extent, Rows, Sums, multiply};
use crate::element::sealed::{Family, Stored, for_each_number, lanes, load};
use crate::stack::ALIGNMENT;
use crate::stack::Stack;
use crate::{Convolution, Storage, View};

/// Most rows of a block: taps times input channels.
const ROWS: usize = 576;

/// Most columns of a block: output channels, for which inputs are packed once.
const COLUMNS: usize = 128;

/// Columns that are multiplied at a time: with the cotangents of a chunk they leave room in the first-level cache.
const PART_COLUMNS: usize = 64;

/// Most input channels of a block.
const CHANNELS: usize = 192;

/// Positions of a chunk.
const POSITIONS: usize = 128;

/// Columns of a chunk, where cotangents have enough rows, of a convolution with several taps: nearly square chunks share most inputs.
const CHUNK_COLUMNS: usize = 16;

/// Bytes of a chunk's packed inputs.
const INPUT_BYTES: usize = 160 << 10;

/// Chunks of the longest sum in the element's own precision.
const STRIP: usize = 16;

/// A convolution's blocks.
#[derive(Debug, Clone, Copy)]
struct Blocks {
    /// Parts of the kernel's rows and columns, and of a group's input and output channels.
    kernel: [usize; 2],
    inputs: usize,
    outputs: usize,
    groups: usize,
}

impl Blocks {
    fn new(convolution: &Convolution) -> Self {
        let [kernel_rows, kernel_columns] = convolution.window.kernel;
        let depth = convolution.in_channels / convolution.groups;
        let columns = kernel_columns.min(ROWS);
        let channels = (ROWS / columns).clamp(1, depth.min(CHANNELS));
        // Fewer channels where that lets a block have all taps.
        let all = ROWS / kernel_rows.saturating_mul(columns).max(1);
        let channels = if all >= channels.min(32) {
            channels.min(all)
        } else {
            channels
        };
        let rows = (ROWS / (columns * channels)).clamp(1, kernel_rows);
        Self {
            kernel: [kernel_rows.div_ceil(rows), kernel_columns.div_ceil(columns)],
            inputs: depth.div_ceil(channels),
            outputs: (convolution.out_channels / convolution.groups).div_ceil(COLUMNS),
            groups: convolution.groups,
        }
    }

    fn count(&self) -> usize {
        [self.kernel[1], self.inputs, self.outputs, self.groups]
            .into_iter()
            .fold(self.kernel[0], usize::saturating_mul)
    }

    /// Values of the largest block's sums, rows filled up.
    fn values(&self, convolution: &Convolution) -> usize {
        let [rows, columns] =
            [0, 1].map(|axis| convolution.window.kernel[axis].div_ceil(self.kernel[axis]));
        let inputs = (convolution.in_channels / convolution.groups).div_ceil(self.inputs);
        let outputs = (convolution.out_channels / convolution.groups).div_ceil(ALIGNMENT);
        rows * columns * inputs * outputs.div_ceil(self.outputs) * ALIGNMENT
    }
}

/// Values of scratch that a weight gradient needs.
pub(crate) fn scratch_len<E: Storage>(convolution: &Convolution) -> usize {
    let blocks = Blocks::new(convolution);
    scratch_for::<E>(slots(blocks.count()).saturating_mul(blocks.values(convolution)))
}

/// Adds the weight gradient to `sums`, laid out `[kernel row][kernel column][in / groups][out]`.
pub(super) fn weight_gradient<E: Storage>(
    operands: Operands<'_, E>,
    sums: &mut [f64],
    scratch: &mut [E],
) {
    let Operands {
        convolution,
        input,
        cotangent,
        first,
    } = operands;
    let (height, width) = (cotangent.height(), cotangent.width());
    let blocks = Blocks::new(convolution);
    let wished = if convolution.window.taps() == 1 {
        POSITIONS
    } else {
        CHUNK_COLUMNS
    };
    let wished = wished.max(POSITIONS / height.min(POSITIONS));
    let columns = width.min(wished.next_multiple_of(E::TERMS));
    let job = Job {
        convolution: *convolution,
        input,
        first,
        cotangent,
        chunk: [height.min(POSITIONS / columns), columns],
        blocks,
    };
    let destination = Destination::new::<E>(sums, scratch, blocks.values(convolution));
    let [rows, columns] = job.chunks();
    Cut::new(blocks.count(), rows * columns, 1, STRIP).run(|part| {
        E::run::<Dense>(Task {
            job: &job,
            destination: &destination,
            part,
        });
    });
}

/// The whole gradient.
struct Job<'a, E: Storage> {
    convolution: Convolution,
    input: View<'a, E>,
    first: [isize; 2],
    cotangent: View<'a, E>,
    /// Rows and columns of a chunk of positions.
    chunk: [usize; 2],
    blocks: Blocks,
}

/// The family of this gradient's tasks.
struct Dense;

impl Family for Dense {
    type Task<'a, E: Storage> = Task<'a, E, Job<'a, E>>;

    for_each_number!(|task, Number| Number::dispatch(task));
}

impl<E: Storage> Job<'_, E> {
    /// Chunks of the cotangents, along rows and columns.
    fn chunks(&self) -> [usize; 2] {
        [
            self.cotangent.height().div_ceil(self.chunk[0]),
            self.cotangent.width().div_ceil(self.chunk[1]),
        ]
    }
}

impl<E: Storage> Blocked<E> for Job<'_, E> {
    type Block<'a>
        = Block<'a, E>
    where
        Self: 'a;

    fn block(&self, index: usize) -> Block<'_, E> {
        let blocks = self.blocks;
        let convolution = &self.convolution;
        let mut rest = index;
        let mut next = |count: usize| {
            let part = rest % count;
            rest /= count;
            part
        };
        let even = |total: usize, part: usize, parts: usize| {
            part * total / parts..(part + 1) * total / parts
        };
        let output = next(blocks.outputs);
        let input = next(blocks.inputs);
        let kernel = [next(blocks.kernel[0]), next(blocks.kernel[1])];
        Block {
            job: self,
            group: next(blocks.groups),
            kernel: [0, 1].map(|axis| {
                even(
                    convolution.window.kernel[axis],
                    kernel[axis],
                    blocks.kernel[axis],
                )
            }),
            inputs: even(
                convolution.in_channels / convolution.groups,
                input,
                blocks.inputs,
            ),
            outputs: columns(
                convolution.out_channels / convolution.groups,
                output,
                blocks.outputs,
            ),
        }
    }
}

/// Some taps of some input channels, and some output channels, of one group.
struct Block<'a, E: Storage> {
    job: &'a Job<'a, E>,
    group: usize,
    kernel: [Range<usize>; 2],
    inputs: Range<usize>,
    outputs: Range<usize>,
}

impl<E: Storage> Summed<E> for Block<'_, E> {
    fn place(&self) -> Place {
        let convolution = &self.job.convolution;
        let row_step = convolution.out_channels;
        let depth = convolution.in_channels / convolution.groups;
        let columns = convolution.window.kernel[1];
        let tap = self.kernel[0].start * columns + self.kernel[1].start;
        let width = convolution.out_channels / convolution.groups;
        Place {
            first: (tap * depth + self.inputs.start) * row_step
                + self.group * width
                + self.outputs.start,
            taps: Extent {
                rows: self.kernel[0].len(),
                columns: self.kernel[1].len(),
            },
            tap_steps: [columns * depth * row_step, depth * row_step],
            rows: self.inputs.len(),
            row_step,
            columns: self.outputs.len(),
        }
    }

    /// Sums over some chunks of the cotangents, counted in raster order.
    #[inline(always)]
    fn sum<S: Simd>(&self, simd: S, chunks: Range<usize>, target: &Target<'_, E::Compute>) {
        let lanes = lanes::<S, E>();
        let place = self.place();
        let mut inputs = Stack::<INPUT_BYTES>::uninit();
        let mut cotangents = Stack::<{ POSITIONS * PART_COLUMNS * size_of::<f64>() }>::uninit();
        let mut sums = Stack::<{ ROWS * COLUMNS * size_of::<f64>() }>::uninit();
        let inputs = inputs.as_mut_ptr().cast::<E>();
        let cotangents = cotangents.as_mut_ptr().cast::<E>();
        let sums = sums.as_mut_ptr().cast::<E::Compute>();
        let [height, width] = self.job.chunk;
        let across = self.job.chunks()[1];
        debug_assert!(place.taps.product() * place.rows <= ROWS && place.pitch() <= COLUMNS);
        let mut replace = true;
        for chunk in chunks {
            let (row, column) = (chunk / across * height, chunk % across * width);
            let rows = row..(row + height).min(self.job.cotangent.height());
            let columns = column..(column + width).min(self.job.cotangent.width());
            let packed = self.packed([rows.len(), columns.len()]);
            debug_assert!(self.packed_bytes(&packed) <= INPUT_BYTES);
            debug_assert!(rows.len() * columns.len() <= POSITIONS);
            let step = packed.map(|axis| axis.positions);
            for row in rows.clone().step_by(step[0]) {
                for column in columns.clone().step_by(step[1]) {
                    let rows = row..(row + step[0]).min(rows.end);
                    let columns = column..(column + step[1]).min(columns.end);
                    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
                    // SAFETY: the stack has room for the packed positions, and for the block's sums; the first positions write
                    // all of them.
                    unsafe {
                        let extent = Extent {
                            rows: rows.len(),
                            columns: columns.len(),
                        };
                        let inputs = self.inputs_in_place(&rows, &columns).unwrap_or_else(|| {
                            self.pack_inputs(simd, &packed, [rows.start, columns.start], inputs)
                        });
                        for first in (0..place.columns).step_by(PART_COLUMNS) {
                            let part = first..(first + PART_COLUMNS).min(place.columns);
                            let cotangents = if self.has_whole_cotangents::<S>(&part) {
                                self.cotangents_in_place(&rows, &columns)
                            } else {
                                self.pack_cotangents(simd, &rows, &columns, &part, cotangents)
                            };
                            self.multiply(
                                simd, &packed, extent, inputs, cotangents, part, sums, replace,
                            );
                        }
                    }
                    replace = false;
                }
            }
        }
        for row in 0..place.taps.product() * place.rows {
            for column in (0..place.columns).step_by(lanes) {
                #[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
                // SAFETY: all sums were written; this task alone writes the block to the target.
                unsafe {
                    let value = load::<S, E::Compute>(simd, sums.add(row * place.pitch() + column));
                    target.take(simd, &place, row, column, value);
                }
            }
        }
    }
}

impl<E: Storage> Block<'_, E> {
    /// Adds the products of all taps over some packed positions.
    ///
    /// # Safety
    /// The positions must be packed, and `sums` have room for the block.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    #[expect(clippy::too_many_arguments, reason = "three matrices and their shapes")]
    unsafe fn multiply<S: Simd>(
        &self,
        simd: S,
        packed: &[PackedAxis; 2],
        extent: Extent,
        inputs: Rows<E>,
        cotangents: Rows<E>,
        part: Range<usize>,
        sums: *mut E::Compute,
        replace: bool,
    ) {
        let place = self.place();
        let pitch = place.pitch();
        let depth = self.inputs.len();
        let place_values = depth * E::TERMS;
        let row_pitch = packed[1].places::<E>() * place_values;
        // Neighbouring taps of a kernel row lie next to each other.
        let (taps, rows) = if packed[1].tap_step == 1 {
            (1, place.taps.columns * depth)
        } else {
            (place.taps.columns, depth)
        };
        for kernel_row in 0..place.taps.rows {
            for tap in 0..taps {
                let from = kernel_row * packed[0].tap_step * row_pitch
                    + tap * packed[1].tap_step * place_values;
                let to = kernel_row * place.taps.columns * depth + tap * rows;
                // SAFETY: as the caller vouches.
                unsafe {
                    multiply(
                        simd,
                        Rows {
                            first: inputs.first.add(from),
                            ..inputs
                        },
                        cotangents,
                        extent,
                        Sums {
                            first: sums.add(to * pitch + part.start),
                            pitch,
                            rows,
                            columns: part.len(),
                            replace,
                        },
                    );
                }
            }
        }
    }
}

const _: () = assert!(COLUMNS.is_multiple_of(ALIGNMENT));
