//! What becomes of each tile of a sweep: it is computed, or is as one that was.

use std::cmp::Reverse;
use std::ops::Range;

use stream_grad_tiling::{Geometry, MOST_TEMPLATES, Rect, Templates};

use super::color_grid::ColorGrid;
use super::schedule::{Schedule, TilePlace};
use crate::error::{Result, StreamError};
use crate::exchange::{CotangentSource, TileSource};

/// The most colours that a sweep tells apart; tiles of further ones are computed.
const MOST_COLORS: usize = 64;

/// What becomes of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It is computed.
    Computed,
    /// It is computed, and held as a template.
    Template(usize),
    /// It is as the tile that a template was taken from.
    Repeated(usize),
}

/// The roles of all tiles of some blocks, or of some bands of one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roles {
    /// The first block, counted over all images.
    first: usize,
    /// The first band of each.
    first_band: usize,
    /// Of each block and tile: 0 if it is computed, else 1 more than twice the template for the tile that it is taken from, and 2
    /// more for others. Nothing if all are computed.
    blocks: Vec<Vec<u16>>,
    templates: Vec<Template>,
}

/// The roles of the tiles of one block in the backward sweep.
#[derive(Debug, Clone, Default)]
pub(crate) struct BackwardRoles {
    /// In the forward sweep over each segment but the last, which comes before its backward sweep.
    pub(crate) again: Vec<Roles>,
    pub(crate) back: Roles,
}

impl BackwardRoles {
    /// Those of a block, counted over all images; without cotangents, all tiles are computed backward.
    ///
    /// # Errors
    /// A source that cannot tell.
    pub(crate) fn of(
        schedule: &Schedule<'_>,
        source: &dyn TileSource,
        cotangents: Option<&dyn CotangentSource>,
        number: usize,
    ) -> Result<Self> {
        let again = 0..schedule.geometry.segments() - 1;
        let again = again.map(|segment| Roles::again(schedule, source, number, segment));
        Ok(Self {
            again: again.collect::<Result<_>>()?,
            back: match cotangents {
                Some(cotangents) => Roles::backward(schedule, source, cotangents, number)?,
                None => Roles::default(),
            },
        })
    }
}

/// A template, for a class of tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Template {
    /// Elements that it holds.
    length: u64,
    /// Number of tiles that are as the one that it is taken from, that one included.
    tiles: u32,
}

impl Roles {
    /// Those of a forward sweep over blocks. Asks the source for colours.
    ///
    /// # Errors
    /// A source that cannot tell.
    pub(crate) fn forward(
        schedule: &Schedule<'_>,
        source: &dyn TileSource,
        range: Range<usize>,
    ) -> Result<Self> {
        let Some(templates) = schedule.buffers.forward_templates() else {
            return Ok(Self::default());
        };
        let geometry = schedule.geometry;
        let mut classes = Classes::new(templates, source);
        let first = range.start;
        let blocks = range.map(|number| {
            let bands = 0..geometry.block(number % geometry.blocks()).rows.bands();
            classes.of_bands(geometry, number, bands)
        });
        let mut blocks = blocks.collect::<Result<Vec<_>>>()?;
        Ok(Self {
            templates: classes.settle(blocks.iter_mut().flatten()),
            first,
            first_band: 0,
            blocks,
        })
    }

    /// Those of a forward sweep over the bands of one segment of a block, counted over all images.
    ///
    /// # Errors
    /// A source that cannot tell.
    fn again(
        schedule: &Schedule<'_>,
        source: &dyn TileSource,
        number: usize,
        segment: usize,
    ) -> Result<Self> {
        let Some(templates) = schedule.buffers.forward_templates() else {
            return Ok(Self::default());
        };
        let geometry = schedule.geometry;
        let bands = geometry.block(number % geometry.blocks()).rows.bands();
        let bands = geometry.segment_bands(bands, segment);
        let mut classes = Classes::new(templates, source);
        let mut tiles = classes.of_bands(geometry, number, bands.clone())?;
        Ok(Self {
            templates: classes.settle(tiles.iter_mut()),
            first: number,
            first_band: bands.start,
            blocks: vec![tiles],
        })
    }

    /// Those of the backward sweep over one block, counted over all images: its sums are its own, whoever sweeps the others. Asks the
    /// source for colours, and where cotangents follow from features.
    ///
    /// # Errors
    /// A source that cannot tell.
    fn backward(
        schedule: &Schedule<'_>,
        source: &dyn TileSource,
        cotangents: &dyn CotangentSource,
        number: usize,
    ) -> Result<Self> {
        let Some(templates) = schedule.buffers.backward_templates() else {
            return Ok(Self::default());
        };
        let geometry = schedule.geometry;
        let (image, block) = (number / geometry.blocks(), number % geometry.blocks());
        let mut classes = Classes::new(templates, source);
        let bands = 0..geometry.block(block).rows.bands();
        let mut tiles = classes.of_bands(geometry, number, bands.clone())?;
        for output in 0..schedule.outputs.len() {
            let raster = || geometry.block(block).raster(bands.clone());
            let cone = |tile| templates.outputs(block, tile, output);
            let colored = raster()
                .zip(&tiles)
                .filter(|(_, class)| **class != NO_CLASS);
            let cones = colored.map(|(tile, _)| cone(tile));
            let follows = |part| cotangents.follows_from_features(image, output, part);
            let follow = ColorGrid::new(cones.filter(|cone| !cone.is_empty()), |part| {
                Ok::<_, StreamError>(follows(part).then_some(0))
            })?;
            for (tile, class) in raster().zip(&mut tiles) {
                let cone = cone(tile);
                if !cone.is_empty() && follow.color(cone).is_none() {
                    *class = NO_CLASS;
                }
            }
        }
        Ok(Self {
            // The last tile of a class is the first that the backward sweep gets to.
            templates: classes.settle(tiles.iter_mut().rev()),
            first: number,
            first_band: 0,
            blocks: vec![tiles],
        })
    }

    /// What becomes of a tile.
    pub(crate) fn of(&self, geometry: &Geometry, place: TilePlace) -> Role {
        let block = (place.image * geometry.blocks() + place.block).checked_sub(self.first);
        let Some(roles) = block.and_then(|block| self.blocks.get(block)) else {
            return Role::Computed;
        };
        let columns = geometry.block(place.block).columns.bands();
        let band = place.tile.band.checked_sub(self.first_band);
        let role = band.and_then(|band| roles.get(band * columns + place.tile.column));
        match *role.unwrap_or(&0) {
            0 => Role::Computed,
            role if role % 2 == 1 => Role::Template(usize::from(role / 2)),
            role => Role::Repeated(usize::from(role / 2 - 1)),
        }
    }

    /// Number of tiles of a block, counted over all images, that are computed.
    pub(crate) fn computed(&self, geometry: &Geometry, number: usize) -> usize {
        let (image, index) = (number / geometry.blocks(), number % geometry.blocks());
        let block = geometry.block(index);
        let tiles = block.raster(0..block.rows.bands());
        let computed = tiles.filter(|&tile| {
            let place = TilePlace {
                image,
                block: index,
                tile,
            };
            !matches!(self.of(geometry, place), Role::Repeated(_))
        });
        computed.count()
    }

    /// Elements that are held of a tile.
    pub(crate) fn length(&self, role: Role) -> u64 {
        self.template(role).map_or(0, |template| template.length)
    }

    /// For how many tiles a tile is computed.
    pub(crate) fn tiles(&self, role: Role) -> u32 {
        self.template(role).map_or(1, |template| template.tiles)
    }

    fn template(&self, role: Role) -> Option<&Template> {
        match role {
            Role::Template(number) => self.templates.get(number),
            Role::Computed | Role::Repeated(_) => None,
        }
    }

    /// Memory for the templates, of which none is there yet.
    pub(crate) fn memories<M: Default>(&self) -> Vec<M> {
        self.templates.iter().map(|_| M::default()).collect()
    }
}

/// Tiles of one key and one colour.
struct Classes<'a> {
    templates: &'a Templates,
    source: &'a dyn TileSource,
    /// The bits of each.
    colors: Vec<Vec<u64>>,
}

/// The class of a tile that has none.
const NO_CLASS: u16 = 0;

impl<'a> Classes<'a> {
    fn new(templates: &'a Templates, source: &'a dyn TileSource) -> Self {
        Self {
            templates,
            source,
            colors: Vec::new(),
        }
    }

    /// One more than the class of each tile of some bands of a block in raster order, or [`NO_CLASS`].
    fn of_bands(
        &mut self,
        geometry: &Geometry,
        number: usize,
        bands: Range<usize>,
    ) -> Result<Vec<u16>> {
        let (image, index) = (number / geometry.blocks(), number % geometry.blocks());
        let block = geometry.block(index);
        let templates = self.templates;
        let fields = block.raster(bands.clone());
        let fields = fields.filter_map(|tile| Some(templates.of(index, tile)?.1));
        let colors = ColorGrid::new(fields, |cell| self.color(image, cell))?;
        let classes = block.raster(bands).map(|tile| {
            let (key, field) = templates.of(index, tile)?;
            Some(key * MOST_COLORS + colors.color(field)?)
        });
        // Of 32 keys and 64 colours.
        let number = |class| u16::try_from(class + 1).unwrap_or(NO_CLASS);
        Ok(classes
            .map(|class| class.map_or(NO_CLASS, number))
            .collect())
    }

    /// The colour of a part of an image, if it has one, by number.
    fn color(&mut self, image: usize, region: Rect) -> Result<Option<usize>> {
        let color = self.source.one_color(image, region);
        let color = color.map_err(|source| StreamError::Source {
            image,
            region,
            source,
        })?;
        Ok(color.and_then(|color| self.number(&color)))
    }

    /// The number of a colour, if there are not too many.
    fn number(&mut self, color: &[f64]) -> Option<usize> {
        let bits = || color.iter().map(|value| value.to_bits());
        let same = |known: &Vec<u64>| known.iter().copied().eq(bits());
        if let Some(number) = self.colors.iter().position(same) {
            return Some(number);
        }
        let number = self.colors.len();
        (number < MOST_COLORS).then(|| {
            self.colors.push(bits().collect());
            number
        })
    }

    /// Makes roles of classes, of tiles in the order in which they are swept, and says what templates there are: those of most
    /// tiles, as far as there is room.
    fn settle<'t>(&self, tiles: impl Iterator<Item = &'t mut u16>) -> Vec<Template> {
        let tiles: Vec<&mut u16> = tiles.filter(|class| **class != NO_CLASS).collect();
        let mut counts = vec![0_u32; self.templates.keys() * MOST_COLORS];
        for class in &tiles {
            counts[usize::from(**class) - 1] += 1;
        }
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.retain(|&class| counts[class] > 1);
        order.sort_by_key(|&class| Reverse(counts[class]));
        let mut next_role = vec![0_u16; counts.len()];
        let mut held = Vec::new();
        let mut room = self.templates.room();
        for class in order.into_iter().take(MOST_TEMPLATES) {
            let length = self.templates.length(class / MOST_COLORS);
            let Some(left) = room.checked_sub(length) else {
                continue;
            };
            room = left;
            next_role[class] = u16::try_from(2 * held.len() + 1).unwrap_or(0);
            held.push(Template {
                length,
                tiles: counts[class],
            });
        }
        for role in tiles {
            let next = &mut next_role[usize::from(*role) - 1];
            *role = *next;
            // All tiles but the first are as that one.
            *next += *next % 2;
        }
        held
    }
}
