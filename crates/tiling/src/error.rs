//! Everything that planning can refuse.

use crate::span::Axis;

/// A refusal while a graph or a recipe is made. After a recipe is accepted, geometry queries cannot fail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TilingError {
    /// A window parameter that has no meaning.
    #[error("window {parameter} is {found}, expected at least {minimum} and at most {maximum}")]
    Window {
        /// Which parameter.
        parameter: &'static str,
        /// Its value.
        found: u64,
        /// The smallest legal value.
        minimum: u64,
        /// The largest legal value.
        maximum: u64,
    },
    /// A stored recipe of a later version.
    #[error(
        "a recipe of version {found}, and this program reads up to {newest}: it was stored by a newer one"
    )]
    RecipeVersion {
        /// The version stored.
        found: u32,
        /// The newest that is read.
        newest: u32,
    },
    /// A stored recipe with another number of stages than can be run.
    #[error("a recipe of {found} stages, expected 1")]
    RecipeStages {
        /// The stages stored.
        found: usize,
    },
    /// The image is smaller than a layer can take.
    #[error(
        "layer `{layer}`: {axis} of its input are {found}, and its window needs at least {needed} (padding included: {padded})"
    )]
    InputTooSmall {
        /// The layer's name.
        layer: String,
        /// The axis that is too short.
        axis: Axis,
        /// The input's size along it.
        found: u64,
        /// The window's extent along it.
        needed: u64,
        /// The input's size with the padding on both sides.
        padded: u64,
    },
    /// A size above what index arithmetic supports.
    #[error("layer `{layer}`: {axis} would be {found}, and at most {maximum} are supported")]
    ExtentTooLarge {
        /// The layer's name.
        layer: String,
        /// The axis.
        axis: Axis,
        /// The size.
        found: u128,
        /// The largest size that is supported.
        maximum: u64,
    },
    /// The inputs of a merge differ in size.
    #[error(
        "layer `{layer}` merges inputs of different size: `{first}` has {first_size} {axis}, `{other}` has {other_size}"
    )]
    MergeMismatch {
        /// The merging layer's name.
        layer: String,
        /// The axis along which they differ.
        axis: Axis,
        /// The first input's name.
        first: String,
        /// What the first input gives.
        first_size: u64,
        /// The other input's name.
        other: String,
        /// What the other input gives.
        other_size: u64,
    },
    /// A node refers to one that does not come before it, or to none.
    #[error(
        "layer `{layer}` refers to node {source_node}, expected one of the {nodes} nodes before it"
    )]
    UnknownNode {
        /// The layer's name.
        layer: String,
        /// The index it refers to.
        source_node: usize,
        /// Number of nodes before it.
        nodes: usize,
    },
    /// A node without inputs besides the image, or a graph without outputs.
    #[error("`{layer}` has no {what}")]
    Missing {
        /// The layer's (or the graph's) name.
        layer: String,
        /// What is missing.
        what: &'static str,
    },
    /// A tile, block or segment count that cannot be used.
    #[error("{what} is {found} along {axis}, expected at least 1 and at most {maximum}")]
    Cut {
        /// `tile`, `block` or `segments`.
        what: &'static str,
        /// The axis.
        axis: Axis,
        /// What was asked for.
        found: u64,
        /// The largest legal value.
        maximum: u64,
    },
    /// Cut positions that do not begin at the span's first index, rise strictly and end at its last.
    #[error("cuts along {axis} must rise strictly from {lo} to {hi}, found {found:?}")]
    Cuts {
        /// The axis.
        axis: Axis,
        /// Where they must begin.
        lo: i64,
        /// Where they must end.
        hi: i64,
        /// What was given.
        found: Vec<i64>,
    },
    /// Several outputs cannot be cut into blocks.
    #[error("blocks partition one output, and the graph has {outputs}: ask for one block")]
    BlocksNeedOneOutput {
        /// Number of outputs.
        outputs: usize,
    },
    /// No recipe fits in the budget.
    #[error(
        "the memory budget is {budget} bytes and the smallest recipe needs {minimum} bytes, of which {binding_bytes} are {binding}"
    )]
    BudgetTooSmall {
        /// The budget in bytes.
        budget: u128,
        /// The smallest peak of any recipe, in bytes.
        minimum: u128,
        /// The largest class of bytes in it.
        binding: &'static str,
        /// Its bytes.
        binding_bytes: u128,
    },
    /// What is saved does not fit in the file.
    #[error("what is saved takes {needed} bytes of a file, and it may hold {limit} bytes")]
    FileTooSmall {
        /// The most bytes that the file may hold.
        limit: u128,
        /// The bytes of what the recipe saves.
        needed: u128,
    },
    /// A node cannot be stored.
    #[error("node {node} cannot be stored: {reason}")]
    Stored {
        /// The node's index.
        node: usize,
        /// Why.
        reason: &'static str,
    },
    /// A cut into more pieces than the schedule can hold.
    #[error("the image would be cut into {found} {what}, and at most {maximum} are supported")]
    TooManyPieces {
        /// `bands of rows`, `bands of columns` or `blocks`.
        what: &'static str,
        /// How many there would be.
        found: u128,
        /// The largest number that is supported.
        maximum: u64,
    },
    /// A tile of the published method that lies wholly in its lost borders.
    #[error(
        "a tile of {found} pixels keeps no gradient in the published method, which needs at least {minimum}"
    )]
    PublishedTile {
        /// The tile's edge.
        found: u64,
        /// The smallest edge that keeps any gradient.
        minimum: u64,
    },
    /// A text that is not a number of bytes.
    #[error(
        "`{found}` is not a number of bytes, expected for example `8GiB`, `512MiB` or `1000000`"
    )]
    ByteCount {
        /// The text.
        found: String,
    },
}
