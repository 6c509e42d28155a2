//! `stream-grad plan`: how an image would be streamed, beside the conventional computation and the published method.

use crate::arguments::PlanArguments;
use anyhow::bail;
use stream_grad::tiling::{
    Axis, Fraction, FrontPoint, LostBorder, NodeId, PerAxis, PublishedBorders, PublishedCost,
    ReceptiveField, Reuse, SizedGraph, Storage, Weights, conventional_activation_bytes, strides,
};
use stream_grad::{ByteCount, FrontRow, Net, Ones, Plan, PlanRequest, front_rows};
use stream_grad_models::ModelName;
use stream_grad_train::report::write_front;
use stream_grad_train::source::{Background, typical_texture};

use crate::image_size::ImageSize;
use crate::model;
use crate::slide_input::SlideInput;

/// Tiles of the published method that are tried, as the power of two of the largest.
const LARGEST_PUBLISHED_TILE: u32 = 16;
/// Rows of the front that are shown.
const ROWS: usize = 12;

/// What is planned for.
enum Image {
    Size(ImageSize, Background),
    Slide(Box<SlideInput>),
}

impl Image {
    fn of(arguments: &PlanArguments) -> anyhow::Result<Self> {
        let background = arguments.background.into();
        match (&arguments.slide, arguments.image) {
            (Some(path), _) => {
                let memory = arguments.recipe.memory;
                let slide = SlideInput::open(path, arguments.mpp, memory, background)?;
                Ok(Self::Slide(Box::new(slide)))
            }
            (None, Some(size)) => Ok(Self::Size(size, background)),
            (None, None) => bail!("give --image or --slide"),
        }
    }

    fn size(&self) -> ImageSize {
        match self {
            Self::Size(size, _) => *size,
            Self::Slide(slide) => {
                let [_, _, height, width] = slide.shape();
                ImageSize { height, width }
            }
        }
    }

    fn reusing(&self, request: PlanRequest) -> PlanRequest {
        match self {
            Self::Size(_, background) => {
                request.reuse(background.reuse()).texture(typical_texture())
            }
            Self::Slide(slide) => slide.reusing(request),
        }
    }

    /// How many tiles are computed for others, where any may be.
    fn reuse(&self, plan: &Plan) -> anyhow::Result<Option<String>> {
        if plan.recipe().reuse == Reuse::Nothing {
            return Ok(None);
        }
        let text = match self {
            Self::Size(..) => "how many tiles are computed once depends on the image; the predicted time is that of tissue on a \
                               quarter of it"
                .to_owned(),
            Self::Slide(slide) => {
                let computed = plan.computed_tiles(&slide.source, &Ones)?;
                format!(
                    "of {} tiles, {} are computed forward and {} backward; the others are of one colour, as one of these",
                    plan.tiles(),
                    computed.forward,
                    computed.backward
                )
            }
        };
        Ok(Some(text))
    }
}

/// Prints the plan; no weight is read, and of a slide only what its tissue is found by.
///
/// # Errors
/// If the network is not known, a slide cannot be read, or what planning refuses; if a plot cannot be written.
pub fn run(arguments: &PlanArguments) -> anyhow::Result<()> {
    let dtype = model::dtype(arguments.recipe.dtype);
    let (name, net) = model::build(&arguments.model, model::computed(arguments.recipe.dtype))?;
    let input = Image::of(arguments)?;
    let image = input.size();
    let request = model::unbounded_request(&arguments.recipe, image.height, image.width);
    let request = input.reusing(request);
    let unbounded = model::calibrated(&net, request, model::threads(arguments.recipe.threads))?;
    let plan = net.plan(model::bounded(&arguments.recipe, unbounded.clone()))?;
    println!("{name}, image {image}");
    println!("{plan}");
    if let Some(reuse) = input.reuse(&plan)? {
        println!("{reuse}");
    }

    let element_bytes = u64::try_from(dtype.size_in_bytes())?;
    let sized = plan.geometry().sized();
    let activations = ByteCount::saturating(conventional_activation_bytes(sized, element_bytes));
    println!("conventional: {activations} of activations, compute ratio 1");
    let tile = typical_tile(sized);
    let tile = net.sized_graph(tile, tile)?;
    for line in receptive_fields(&net, &tile) {
        println!("{line}");
    }
    match tile.graph().outputs() {
        [_] => print_published(name, &net, &plan, &tile, element_bytes)?,
        several => println!(
            "published method: only of networks with one output, and this one has {}",
            several.len()
        ),
    }
    let front = net.front(&unbounded)?;
    let most = (!arguments.all).then_some(ROWS);
    let rows = front_rows(&front, &plan, most);
    println!("{}", front_title(front.len(), rows.len()));
    println!("          memory  predicted time  compute ratio  segments  stored         tile");
    for row in &rows {
        println!("{}", front_row(row));
    }
    if let Some(path) = &arguments.plot {
        let title = format!("{name}, {image}: what memory brings");
        write_front(path, &title, &front_rows(&front, &plan, None))?;
        println!("plotted in {}", path.display());
    }
    Ok(())
}

fn front_title(all: usize, shown: usize) -> String {
    if shown < all {
        format!(
            "what memory brings ({shown} of {all} recipes that no other beats in memory, time and compute ratio; * is this plan; \
             --all for the others):"
        )
    } else {
        "what memory brings (every recipe that no other beats in memory, time and compute ratio; * is this plan):"
            .to_owned()
    }
}

fn front_row(row: &FrontRow) -> String {
    let FrontPoint {
        recipe,
        storage,
        peak,
        cost,
        time,
    } = &row.point;
    format!(
        "{:1}{:>15}{:>16}{:>15}{:>10}{:>6}{:>15}{}{}",
        if row.chosen { "*" } else { "" },
        ByteCount::saturating(peak.peak()).to_string(),
        time.to_string(),
        cost.compute_ratio().to_string(),
        recipe.segments,
        recipe.stored.len(),
        format!("{}x{}", recipe.tile.rows, recipe.tile.columns),
        match recipe.weights {
            Weights::Held => "",
            Weights::PackedOnUse => ", weights packed on use",
        },
        match storage {
            Storage::Memory => String::new(),
            Storage::File => {
                let bytes = ByteCount::saturating(cost.file_bytes);
                format!(", {bytes} through a file")
            }
        }
    )
}

/// An edge at which the middle of a tile is far from its borders: two receptive fields in whole total strides, of the output that has
/// the largest.
fn typical_tile(sized: &SizedGraph) -> u64 {
    let edge = |output: NodeId, axis| {
        let extent = ReceptiveField::of(sized, axis, output)
            .extent
            .saturating_mul(2);
        let stride = u64::try_from(strides(sized, axis)[output.0].ceil()).unwrap_or(u64::MAX);
        extent.div_ceil(stride.max(1)).saturating_mul(stride.max(1))
    };
    let outputs = sized.graph().outputs().iter();
    let edges = outputs.flat_map(|&output| Axis::BOTH.map(|axis| edge(output, axis)));
    edges.fold(1, u64::max)
}

/// A line for each output.
fn receptive_fields(net: &Net, sized: &SizedGraph) -> Vec<String> {
    let outputs = sized.graph().outputs();
    let line = |(name, &output): (&str, &NodeId)| {
        let of = match outputs {
            [_] => String::new(),
            _ => format!(" of {name}"),
        };
        let [rows, columns] = Axis::BOTH.map(|axis| ReceptiveField::of(sized, axis, output));
        format!(
            "receptive field{of}: {}x{} pixels, total stride {}x{}",
            rows.extent,
            columns.extent,
            plain(rows.stride),
            plain(columns.stride)
        )
    };
    net.output_names().zip(outputs).map(line).collect()
}

/// A number without decimals where it is whole, as total strides are unless an image is made larger.
fn plain(number: Fraction) -> String {
    let whole = number.ceil();
    if number == Fraction::new(whole, 1) {
        whole.to_string()
    } else {
        number.to_string()
    }
}

/// What padding spoils in a tile, and what the published method makes of that.
fn print_published(
    name: ModelName,
    net: &Net,
    plan: &Plan,
    tile: &SizedGraph,
    element_bytes: u64,
) -> anyhow::Result<()> {
    let exact = PublishedBorders::exact(tile);
    println!(
        "borders that padding spoils in a tile (top/bottom/left/right; nothing is lost here):"
    );
    println!("  derived: {}", borders(&exact));
    let observed = name.observed_borders();
    if let Some(observed) = &observed {
        println!("  {}: {}", observed.source, borders(&observed.borders));
    }
    let lost = observed.map_or(exact, |observed| observed.borders);
    println!("{}", published(net, plan, &lost, element_bytes)?);
    Ok(())
}

fn borders(borders: &PublishedBorders) -> String {
    let sides = |border: &PerAxis<LostBorder>| {
        let (rows, columns) = (border.rows, border.columns);
        format!("{}/{}/{}/{}", rows.lo, rows.hi, columns.lo, columns.hi)
    };
    format!(
        "{} positions of the output, {} pixels of the gradient",
        sides(&borders.output),
        sides(&borders.gradient)
    )
}

/// The published method with the largest tile whose activations fit in the plan's peak.
fn published(
    net: &Net,
    plan: &Plan,
    borders: &PublishedBorders,
    element_bytes: u64,
) -> anyhow::Result<String> {
    let image = plan.geometry().sized().image();
    let graph = net.sized_graph(image.rows, image.columns)?;
    let budget = u128::from(plan.peak_bytes().get());
    let largest = image.rows.min(image.columns);
    let candidates = (0..=LARGEST_PUBLISHED_TILE)
        .rev()
        .map(|power| 1 << power)
        .filter(|&tile| tile <= largest);
    let mut costs = candidates.filter_map(|tile| {
        PublishedCost::new(graph.graph(), image, tile, borders, element_bytes).ok()
    });
    let Some(cost) = costs.find(|cost| cost.tile_bytes <= budget) else {
        return Ok(
            "published method: no tile of a power of two keeps any gradient within this peak"
                .to_owned(),
        );
    };
    Ok(format!(
        "published method: tile {} ({} of activations), keeps {}x{} of it, compute ratio {}",
        cost.tile,
        ByteCount::saturating(cost.tile_bytes),
        cost.kept_backward.rows,
        cost.kept_backward.columns,
        cost.compute_ratio
    ))
}
