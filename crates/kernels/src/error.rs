use stream_grad_tiling::{PerAxis, Rect};

/// Why a kernel refused its arguments.
///
/// Every check is made once, before anything is written: a call that returns an error has left its outputs as they were.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice does not have the length that its shape asks for.
    #[error("{what}: expected {expected} values, found {found}")]
    Length {
        /// The argument.
        what: &'static str,
        /// Values that the shape asks for.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// A view does not have the number of channels that the operator asks for.
    #[error("{what}: expected {expected} channels, found {found}")]
    Channels {
        /// The argument.
        what: &'static str,
        /// Channels that the operator asks for.
        expected: usize,
        /// Channels found.
        found: usize,
    },
    /// A channel that does not exist.
    #[error("{what} {found}: there are {count}, counted from 0")]
    NoSuchChannel {
        /// The kind of channel.
        what: &'static str,
        /// The channel asked for.
        found: usize,
        /// Channels that there are.
        count: usize,
    },
    /// Packed weights are for another number of groups.
    #[error("packed weights: expected those for {expected} groups, found those for {found}")]
    PackedGroups {
        /// Groups of the convolution asked for.
        expected: usize,
        /// Groups that the weights were packed for.
        found: usize,
    },
    /// Packed weights are for another arithmetic: direct, or Winograd's.
    #[error("packed weights: expected those for {expected} arithmetic, found those for {found}")]
    Arithmetic {
        /// The arithmetic of the convolution asked for.
        expected: &'static str,
        /// The arithmetic that the weights were packed for.
        found: &'static str,
    },
    /// Two extents that must agree differ.
    #[error(
        "{what}: expected {expected_height} x {expected_width} pixels, found {height} x {width}"
    )]
    Extent {
        /// The argument.
        what: &'static str,
        /// Height asked for, in pixels.
        expected_height: usize,
        /// Width asked for, in pixels.
        expected_width: usize,
        /// Height found, in pixels.
        height: usize,
        /// Width found, in pixels.
        width: usize,
    },
    /// A buffer does not hold all of a rectangle.
    #[error("{what}: {rect} is not inside {held}")]
    Outside {
        /// The argument.
        what: &'static str,
        /// What is asked for, in its plane.
        rect: Rect,
        /// What is there of the plane.
        held: Rect,
    },
    /// Interpolation needs an input position that the input buffer does not hold.
    #[error(
        "{what}: interpolation reads row {row}, column {column}, outside {held}",
        row = position.rows,
        column = position.columns
    )]
    PositionOutside {
        /// The argument.
        what: &'static str,
        /// The position that is missing, in the input's plane.
        position: PerAxis<i64>,
        /// What the buffer holds of the plane.
        held: Rect,
    },
    /// A kernel extent, stride, dilation, factor, group or channel count is zero.
    #[error("{what}: expected at least 1, found 0")]
    Zero {
        /// The quantity.
        what: &'static str,
    },
    /// The groups of a convolution do not divide its channels.
    #[error("{groups} groups do not divide {in_channels} input and {out_channels} output channels")]
    Groups {
        /// Groups asked for.
        groups: usize,
        /// Input channels.
        in_channels: usize,
        /// Output channels.
        out_channels: usize,
    },
    /// A product of extents, or a window's position, is too large for this machine's integers.
    #[error("{what}: too large for {bits}-bit arithmetic", bits = usize::BITS)]
    Overflow {
        /// The quantity.
        what: &'static str,
    },
    /// Two operands overlap, or one leaves its memory.
    #[error("two operands overlap, or one leaves its memory")]
    Buffers,
}
