//! The bytes that streaming holds at its peak, worked out before anything runs.

use std::fmt;
use std::sync::Arc;

use crate::buffers::{Buffers, Sweep};
use crate::bytes::ByteCount;
use crate::geometry::Geometry;
use crate::graph::NodeId;
use crate::overlap::BlockOverlap;
use crate::packed::{PackedWeights, weight_bytes};
use crate::saved::Storage;
use crate::templates::Templates;

/// Bytes that do not depend on the recipe, stated by the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FixedBytes {
    /// Parameters as the forward sweep reads them, besides [`MemoryRequest::packed_weights`]. Where weights are packed on use, they
    /// live until all gradients are handed out.
    pub forward_weights: u128,
    /// Those of them that the backward sweep reads, besides packed ones, where weights are held; they live as long.
    pub backward_weights: u128,
    /// Running sums of the weight gradients; backward only. With several blocks or images they are held twice: of the block at hand,
    /// and of the blocks that are done.
    pub weight_accumulators: u128,
    /// What the gradients that are handed out take more than the running sums, which they replace one after the other.
    pub gradients: u128,
    /// What packing needs for a moment, in either sweep.
    pub preparation: u128,
    /// What making a gradient of a running sum needs for a moment, when the backward sweep is done.
    pub finishing: u128,
    /// Scratch of the arithmetic for all threads together.
    pub scratch: u128,
    /// The most bytes of buffers on the way to and from a file, if what is saved goes to one; if it holds little, they are a
    /// quarter of that.
    pub file: u128,
}

/// Who holds a map that enters or leaves a sweep: features, their cotangents, the gradient of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Maps {
    /// Streaming does, as whole tensors of every image; they count.
    #[default]
    Whole,
    /// Nobody has to: they leave or arrive tile by tile. What a sink or a source holds is not streaming's, and does not count.
    Streamed,
}

/// What layers allocate for themselves while they run on a tile, besides the buffers that are planned.
pub trait LayerScratch: fmt::Debug + Send + Sync {
    /// The most heap bytes that are held so at one moment, over all tiles of the recipe.
    fn bytes(&self, geometry: &Geometry) -> u128;
}

/// What the peak depends on besides the recipe.
#[derive(Debug, Clone)]
pub struct MemoryRequest {
    /// Bytes of one element as it is stored: 4 for f32, 8 for f64, 2 for bf16.
    pub element_bytes: u64,
    /// Bytes of one element of a whole map, which callers compute with: 4 for bf16, as many as are stored for others.
    pub map_bytes: u64,
    /// Number of images in the batch; each has saved halos of its own.
    pub images: u64,
    /// Bytes that do not depend on the recipe.
    pub fixed: FixedBytes,
    /// For each node, the bytes of its packed weights; missing ones are 0.
    pub packed_weights: Vec<PackedWeights>,
    /// Who holds the feature maps and their cotangents.
    pub features: Maps,
    /// Who holds the gradient of the image, if it is computed.
    pub input_gradient: Maps,
    /// What layers allocate for themselves, if any does.
    pub layers: Option<Arc<dyn LayerScratch>>,
    /// Nodes whose activations and cotangents are shown to a caller: where blocks overlap, sums of the latter wait.
    pub shown: Vec<NodeId>,
}

impl MemoryRequest {
    /// A request for `images` images of elements of `element_bytes` bytes, with whole maps.
    pub fn new(element_bytes: u64, images: u64, fixed: FixedBytes) -> Self {
        Self {
            element_bytes,
            map_bytes: element_bytes,
            images,
            fixed,
            packed_weights: Vec::new(),
            features: Maps::Whole,
            input_gradient: Maps::Whole,
            layers: None,
            shown: Vec::new(),
        }
    }
}

/// Bytes for the lists that a sweep keeps, whatever the recipe.
const BOOKKEEPING: u128 = 64 << 10;
/// Bytes for the lists of one node: its handles, spans, offsets and shapes.
const BOOKKEEPING_PER_NODE: u128 = 1 << 10;
/// Bytes for the lists of a file's thread, and for rounding its buffers.
const BOOKKEEPING_OF_FILE: u128 = 32 << 10;
/// Bytes for the handles and allocation headers of one block of one image.
const BOOKKEEPING_PER_BLOCK: u128 = 256;

/// Bytes that say what becomes of a tile, and which parts of its image are of one colour, where some are computed for others.
const BOOKKEEPING_PER_TILE: u128 = 112;
/// Bytes for the lists of colours, of classes and of templates.
const BOOKKEEPING_OF_TEMPLATES: u128 = 64 << 10;

/// What stays of a sweep's memory for the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldMemory {
    /// None of it.
    Nothing,
    /// What the sweeps work in: arena and carries.
    Working,
    /// That, and the memory for what is saved.
    Everything,
}

/// Bytes of every class of buffer, and their sums in the two phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeakBytes {
    /// Copied and packed weights. Where they are held: those of the forward computation in the forward phase, and in the backward as
    /// far as it computes again; those of the backward computation from there on. Where they are packed on use: copies of all
    /// parameters, and those of the node that has the largest packed ones.
    pub weights: PhaseBytes,
    /// Running sums of the weight gradients.
    pub accumulators: PhaseBytes,
    /// What the gradients that are handed out take more than the running sums.
    pub gradients: PhaseBytes,
    /// What packing, or making a gradient of a running sum, needs for a moment.
    pub preparation: PhaseBytes,
    /// Scratch of the arithmetic.
    pub scratch: PhaseBytes,
    /// What layers allocate for themselves.
    pub layers: PhaseBytes,
    /// Activations and cotangents of one tile.
    pub arena: PhaseBytes,
    /// What the forward sweep holds in advance, as the backward sweep works in more.
    pub reserved: PhaseBytes,
    /// What stays for the next step, while gradients are made.
    pub held: PhaseBytes,
    /// Strips and left halos that only carry.
    pub transient: PhaseBytes,
    /// Carries of cotangents.
    pub cotangent_carries: PhaseBytes,
    /// Saved halos and stored activations, as far as they are in memory.
    pub saved: PhaseBytes,
    /// Cotangents that are shown to a caller, while other blocks still add to them.
    pub shown: PhaseBytes,
    /// Buffers on the way to and from a file.
    pub file: PhaseBytes,
    /// Strips at the borders of segments.
    pub borders: PhaseBytes,
    /// What is held of tiles that are computed for others, and which tile is which.
    pub templates: PhaseBytes,
    /// Whole feature maps.
    pub features: PhaseBytes,
    /// Cotangents of the whole feature maps.
    pub cotangents: PhaseBytes,
    /// Gradient of the image.
    pub input_gradient: PhaseBytes,
    /// Small lists, for which an allowance is made: 64 KiB, 1 KiB a node and 256 bytes a block and image.
    pub bookkeeping: PhaseBytes,
    /// Sum over all classes in the forward phase.
    pub forward: u128,
    /// Sum over all classes in the backward phase.
    pub backward: u128,
    /// Sum over all classes while gradients are made of the running sums.
    pub finish: u128,
}

/// Bytes of one class in the three phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PhaseBytes {
    /// From the start of the forward to its end.
    pub forward: u128,
    /// From the start of the backward until its last tile is done.
    pub backward: u128,
    /// From there until all gradients are handed out.
    pub finish: u128,
}

impl PhaseBytes {
    const fn throughout(bytes: u128) -> Self {
        Self {
            forward: bytes,
            backward: bytes,
            finish: bytes,
        }
    }

    const fn sweeps(forward: u128, backward: u128) -> Self {
        Self {
            forward,
            backward,
            finish: 0,
        }
    }

    const fn from_backward(bytes: u128) -> Self {
        Self {
            forward: 0,
            backward: bytes,
            finish: bytes,
        }
    }

    fn largest(self) -> u128 {
        self.forward.max(self.backward).max(self.finish)
    }
}

impl PeakBytes {
    /// The largest of the three phases.
    pub fn peak(&self) -> u128 {
        self.forward.max(self.backward).max(self.finish)
    }

    /// Every class with its name.
    pub fn classes(&self) -> [(&'static str, PhaseBytes); 20] {
        [
            ("weights", self.weights),
            ("weight-gradient accumulators", self.accumulators),
            ("weight gradients", self.gradients),
            ("weight preparation", self.preparation),
            ("scratch", self.scratch),
            ("scratch of layers", self.layers),
            ("tile arena", self.arena),
            ("reserve for the backward sweep", self.reserved),
            ("held for the next step", self.held),
            ("transient carries", self.transient),
            ("cotangent carries", self.cotangent_carries),
            ("saved halos and stored activations", self.saved),
            ("cotangents shown over blocks", self.shown),
            ("buffers of the file", self.file),
            ("strips at segment borders", self.borders),
            ("templates of tiles", self.templates),
            ("feature maps", self.features),
            ("feature cotangents", self.cotangents),
            ("input gradient", self.input_gradient),
            ("bookkeeping", self.bookkeeping),
        ]
    }

    /// The largest class of the phase that holds most, and its bytes.
    pub fn binding(&self) -> (&'static str, u128) {
        let bytes = |class: PhaseBytes| match self.peak() {
            peak if peak == self.backward => class.backward,
            peak if peak == self.forward => class.forward,
            _ => class.finish,
        };
        self.classes()
            .into_iter()
            .map(|(name, class)| (name, bytes(class)))
            .max_by_key(|class| class.1)
            .unwrap_or(("nothing", 0))
    }

    /// The peak if as much memory as fits the budget stays for the next step, and what that is.
    pub fn holding(self, budget: Option<ByteCount>) -> (Self, HeldMemory) {
        let saved = if self.file.backward == 0 {
            [self.saved, self.borders]
        } else {
            // It is made anew for each block.
            [PhaseBytes::default(); 2]
        };
        let working = self.working(|class| class.backward);
        let everything = saved
            .iter()
            .fold(working, |sum, class| sum.saturating_add(class.backward));
        for (what, bytes) in [
            (HeldMemory::Everything, everything),
            (HeldMemory::Working, working),
        ] {
            let held = PhaseBytes {
                finish: bytes,
                ..PhaseBytes::default()
            };
            let peak = Self { held, ..self }.summed();
            let fits = |budget: ByteCount| peak.peak() <= u128::from(budget.get());
            if peak.peak() <= self.peak() || budget.is_none_or(fits) {
                return (peak, what);
            }
        }
        (self, HeldMemory::Nothing)
    }

    /// What a phase works in.
    fn working(&self, phase: fn(PhaseBytes) -> u128) -> u128 {
        [self.arena, self.transient, self.cotangent_carries]
            .map(phase)
            .into_iter()
            .fold(0, u128::saturating_add)
    }

    fn summed(mut self) -> Self {
        let classes = self.classes();
        let sum = |phase: fn(PhaseBytes) -> u128| {
            classes
                .iter()
                .fold(0_u128, |sum, class| sum.saturating_add(phase(class.1)))
        };
        self.forward = sum(|class| class.forward);
        self.backward = sum(|class| class.backward);
        self.finish = sum(|class| class.finish);
        self
    }
}

impl fmt::Display for PeakBytes {
    /// The peak, then the most that each class holds in any phase.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "peak {} (forward {}, backward {}, gradients {})",
            ByteCount::saturating(self.peak()),
            ByteCount::saturating(self.forward),
            ByteCount::saturating(self.backward),
            ByteCount::saturating(self.finish)
        )?;
        for (name, class) in self.classes() {
            let bytes = class.largest();
            if bytes > 0 {
                write!(f, "\n  {name}: {}", ByteCount::saturating(bytes))?;
            }
        }
        Ok(())
    }
}

/// The bytes that streaming holds at its peak, class by class.
///
/// Forward: weights and their preparation, scratch, that of layers included, the larger arena of the sweeps that run, the
/// carries, and, until the backward sweep has used them, the saved halos and border strips of every block of every image,
/// with the feature maps. Backward: the same without the carries unless segments are swept again, and without held packed
/// weights of nodes that are not computed again; besides the cotangents, their carries, the weights of the backward
/// computation and the running sums. Finish: the sweeps' memory is gone, and gradients replace the running sums one after the
/// other, but for what [stays](PeakBytes::holding). The arena of a repeated forward sweep and that of the backward sweep are one allocation.
///
/// ```
/// use stream_grad_tiling::{
///     Buffers, FixedBytes, Geometry, Graph, MemoryRequest, NodeId, PerAxis, Recipe, SizedGraph, peak_bytes,
/// };
/// let mut graph = Graph::new(3, true);
/// graph.set_outputs(vec![NodeId::IMAGE])?;
/// let sized = SizedGraph::new(graph, PerAxis::both(64))?;
/// let recipe = Recipe::whole(&sized);
/// let geometry = Geometry::new(sized, recipe)?;
/// let request = MemoryRequest::new(4, 1, FixedBytes::default());
/// let peak = peak_bytes(&geometry, &Buffers::new(&geometry), &request);
/// assert_eq!(peak.features.forward, 64 * 64 * 3 * 4);
/// assert_eq!(peak.peak(), peak.backward);
/// // Stored in two bytes; whole maps are computed with in four.
/// let request = MemoryRequest { map_bytes: 4, ..MemoryRequest::new(2, 1, FixedBytes::default()) };
/// let rounded = peak_bytes(&geometry, &Buffers::new(&geometry), &request);
/// assert_eq!(rounded.features, peak.features);
/// assert_eq!(2 * rounded.arena.forward, peak.arena.forward);
/// # Ok::<(), stream_grad_tiling::TilingError>(())
/// ```
pub fn peak_bytes(geometry: &Geometry, buffers: &Buffers, request: &MemoryRequest) -> PeakBytes {
    let element = u128::from(request.element_bytes);
    let images = u128::from(request.images);
    let bytes = |elements: u64| u128::from(elements).saturating_mul(element);
    let segmented = geometry.segments() > 1;
    let saving = buffers.forward_length(Sweep::Saving);
    let forward_arena = if segmented {
        saving.max(buffers.forward_length(Sweep::Carrying))
    } else {
        saving
    };
    let backward_arena = if segmented {
        saving.max(buffers.backward_length())
    } else {
        buffers.backward_length()
    };
    let over_blocks = |length: &dyn Fn(usize) -> u64| bytes_of_blocks(geometry, request, length);
    let saved = match buffers.storage() {
        Storage::Memory => over_blocks(&|block| buffers.saved_length(block)),
        Storage::File => (0..geometry.blocks())
            .map(|block| bytes(buffers.saved_length(block)))
            .max()
            .unwrap_or(0),
    };
    let whole = |node: usize| {
        let channels = u128::from(geometry.sized().graph().nodes()[node].channels);
        geometry
            .sized()
            .plane(node)
            .area()
            .saturating_mul(channels)
            .saturating_mul(request.map_bytes.into())
            .saturating_mul(images)
    };
    let outputs = geometry.sized().graph().outputs();
    let features = match request.features {
        Maps::Whole => outputs
            .iter()
            .fold(0_u128, |sum, output| sum.saturating_add(whole(output.0))),
        Maps::Streamed => 0,
    };
    let nodes = geometry.sized().graph().nodes();
    let input_gradient = match request.input_gradient {
        Maps::Whole if nodes[0].has_cotangent => whole(0),
        Maps::Whole | Maps::Streamed => 0,
    };
    let fixed = request.fixed;
    let transient = bytes(buffers.transient_length());
    let backward_transient = if segmented { transient } else { 0 };
    let carries = bytes(buffers.cotangent_length());
    let forward_working = bytes(forward_arena) + transient;
    let backward_working = bytes(backward_arena) + backward_transient + carries;
    let layers = request.layers.as_ref();
    let file = match buffers.storage() {
        Storage::Memory => 0,
        Storage::File => {
            let quarter = file_bytes(geometry, buffers, request) / 4;
            fixed.file.min(quarter) + BOOKKEEPING_OF_FILE
        }
    };
    let layers = layers.map_or(0, |layers| layers.bytes(geometry));
    let borders = over_blocks(&|block| buffers.border_length(block));
    let templates = |templates: Option<&Templates>| {
        templates.map_or(0, |templates| {
            let tiles = geometry.iter_blocks().map(|block| block.tiles() as u128);
            let tiles = tiles.sum::<u128>().saturating_mul(images);
            bytes(templates.room())
                .saturating_add(tiles.saturating_mul(BOOKKEEPING_PER_TILE))
                .saturating_add(BOOKKEEPING_OF_TEMPLATES)
        })
    };
    let forward_templates = templates(buffers.forward_templates());
    let swept_again = if segmented { forward_templates } else { 0 };
    let backward_templates = templates(buffers.backward_templates()).saturating_add(swept_again);
    let shown = request.shown.iter().fold(0_u128, |sum, node| {
        sum.saturating_add(bytes(BlockOverlap::of(geometry, node.0).values()))
    });
    // Of several blocks: the sums of the one at hand, and those of the ones that are done.
    let sums = images.saturating_mul(geometry.blocks() as u128).clamp(1, 2);
    PeakBytes {
        weights: weight_bytes(geometry, buffers, request),
        accumulators: PhaseBytes {
            backward: fixed.weight_accumulators.saturating_mul(sums),
            ..PhaseBytes::from_backward(fixed.weight_accumulators)
        },
        gradients: PhaseBytes {
            finish: fixed.gradients,
            ..PhaseBytes::default()
        },
        preparation: PhaseBytes {
            finish: fixed.finishing,
            ..PhaseBytes::sweeps(fixed.preparation, fixed.preparation)
        },
        scratch: PhaseBytes::throughout(fixed.scratch),
        layers: PhaseBytes::sweeps(layers, layers),
        arena: PhaseBytes::sweeps(bytes(forward_arena), bytes(backward_arena)),
        reserved: PhaseBytes::sweeps(backward_working.saturating_sub(forward_working), 0),
        transient: PhaseBytes::sweeps(transient, backward_transient),
        cotangent_carries: PhaseBytes::sweeps(0, carries),
        saved: PhaseBytes::sweeps(saved, saved),
        shown: PhaseBytes::sweeps(0, shown),
        file: PhaseBytes::sweeps(file, file),
        borders: PhaseBytes::sweeps(borders, borders),
        templates: PhaseBytes::sweeps(forward_templates, backward_templates),
        features: PhaseBytes::throughout(features),
        cotangents: PhaseBytes::from_backward(features),
        input_gradient: PhaseBytes::from_backward(input_gradient),
        bookkeeping: PhaseBytes::throughout(
            BOOKKEEPING
                + BOOKKEEPING_PER_NODE * nodes.len() as u128
                + (BOOKKEEPING_PER_BLOCK * geometry.blocks() as u128).saturating_mul(images),
        ),
        ..PeakBytes::default()
    }
    .summed()
}

/// The largest number of bytes that a file holds of what is saved.
pub fn file_bytes(geometry: &Geometry, buffers: &Buffers, request: &MemoryRequest) -> u128 {
    bytes_of_blocks(geometry, request, |block| buffers.file_length(block))
}

/// Bytes of memory that a step asks of the system: what both sweeps work in, one after the other, what is saved of every block of
/// every image, and whole maps, but for what stays from the step before within the budget.
pub(crate) fn fresh_bytes(
    geometry: &Geometry,
    buffers: &Buffers,
    request: &MemoryRequest,
    peak: &PeakBytes,
    budget: Option<ByteCount>,
) -> u128 {
    let saved = bytes_of_blocks(geometry, request, |block| buffers.saved_length(block));
    let forward = peak.working(|class| class.forward);
    let all = [
        saved,
        peak.borders.forward,
        peak.features.forward,
        peak.input_gradient.backward,
    ]
    .into_iter()
    .fold(
        forward.max(peak.working(|class| class.backward)),
        u128::saturating_add,
    );
    let (holding, _) = peak.holding(budget);
    all.saturating_sub(holding.held.finish)
}

/// Sums elements over all blocks of all images, in bytes.
fn bytes_of_blocks(
    geometry: &Geometry,
    request: &MemoryRequest,
    elements: impl Fn(usize) -> u64,
) -> u128 {
    (0..geometry.blocks())
        .fold(0_u128, |sum, block| {
            sum.saturating_add(elements(block).into())
        })
        .saturating_mul(request.element_bytes.into())
        .saturating_mul(request.images.into())
}
